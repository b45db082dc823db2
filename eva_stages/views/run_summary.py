"""What a run came to, iteration by iteration: the table that `eva run` ends with, and the same as JSON."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow.compute as pc
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from eva_stages.core.config.evaluation_config import Lettercraft, benchmark_name
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.numeric import mean
from eva_stages.core.parts import FAILED
from eva_stages.core.progress import dollars, facts
from eva_stages.core.rounds import Iteration
from eva_stages.core.run_folder import Run
from eva_stages.core.stage import Stage
from eva_stages.core.tables import count_rows, read_table, reward_matrix
from eva_stages.creator.informativeness import reward_gap
from eva_stages.views.health_warnings import counted, health_of

NO_REJECTIONS = ("evolved", "kept", FAILED)
"""What the counts of curating hold besides reasons why evolutions were rejected."""
SHOWN_REASONS = 3
WIDEST = 1e9
"""Larger figures are written with an exponent."""


def summary(run: Run, recipe: Recipe, rounds: list[Iteration]) -> dict[str, Any]:
    """Every figure of the table; null where a stage is not done."""
    base = next((stage for one in rounds for stage in one.evaluation if stage.name == "base-score"), None)
    document: dict[str, Any] = {
        "recipe": recipe.name,
        "only": recipe.evaluation.only,
        "run": str(run.root),
        "stages": str(run.stages),
        "base": {"held_out": _scores(run, base)} if base else None,
        "iterations": [_iteration(run, one) for one in rounds],
    }
    document["benchmarks"] = benchmark_scores(run, recipe, rounds)
    last = next((one.solver[-1] for one in reversed(rounds) if one.solver and run.done(one.solver[-1])), None)
    document["policy"] = str(run.folder(last)) if last else None
    return document


def _iteration(run: Run, one: Iteration) -> dict[str, Any]:
    stages = {stage.name: stage for stage in one.stages}
    manifests = {name: run.manifest(stage) for name, stage in stages.items() if run.done(stage)}
    curate = manifests.get("curate")
    train = manifests.get("train")
    return {
        "iteration": one.number,
        "prompts": count_rows(run.folder(one.prompts)) if run.done(one.prompts) else None,
        "evolved": curate["counts"]["kept"] if curate else None,
        "rejected": _rejected(curate["counts"] | _contaminated(manifests)) if curate else None,
        **_rewards(run, stages.get("reward")),
        "failures": {name: reasons for name, manifest in manifests.items() if (reasons := manifest.get("failures"))},
        "pairs": manifests["pair"]["counts"] if "pair" in manifests else None,
        "rewrites": manifests["rewritten"]["counts"] if "rewritten" in manifests else None,
        "unscored": train["counts"].get("unscored") if train else None,
        "training": train["training"] | {"steps": train["counts"]["steps"]} if train else None,
        "analysis": _analysis(run, stages),
        "held_out": _scores(run, stages.get("eval-score")),
        "health": health_of(run, stages.get("health")),
        "seconds": round(sum(manifest["seconds"] for manifest in manifests.values()), 1),
        "done": len(manifests) == len(stages),
    }


def _contaminated(manifests: dict[str, Any]) -> dict[str, int]:
    return {"contaminated": manifests["decontaminate"]["counts"]["contaminated"]} if "decontaminate" in manifests else {}


def _rejected(counts: Counter[str]) -> dict[str, int]:
    return {reason: count for reason, count in counts.items() if reason not in NO_REJECTIONS and count}


def _rewards(run: Run, stage: Stage | None) -> dict[str, float | None]:
    if stage is None or not run.done(stage):
        return {"mean_reward": None, "mean_gap": None}
    rewards = reward_matrix(read_table(run.folder(stage), ["rewards"])["rewards"])
    scored = rewards[np.isfinite(rewards).all(axis=1)]
    if len(scored) == 0:
        return {"mean_reward": None, "mean_gap": None}
    return {"mean_reward": float(mean(scored)), "mean_gap": float(mean(reward_gap(scored)))}


def _analysis(run: Run, stages: dict[str, Stage]) -> dict[str, Any] | None:
    """Mean quality and complexity of the prompts and how many have which topic; null where the recipe does not ask or nothing is known."""
    document: dict[str, Any] = {}
    if (scores := stages.get("analyse-scores")) and run.done(scores):
        table = read_table(run.folder(scores), ["quality", "complexity"])
        document |= {name: pc.mean(table[name]).as_py() for name in table.column_names}
        document["unscored"] = run.manifest(scores)["counts"].get("unscored", 0)
    if (topics := stages.get("analyse-topics")) and run.done(topics):
        document["topics"] = dict(
            Counter(map(str, read_table(run.folder(topics), ["topic"])["topic"].drop_null().to_pylist())).most_common()
        )
        document["unlabelled"] = run.manifest(topics)["counts"].get("unlabelled", 0)
    return document or None


def _scores(run: Run, stage: Stage | None) -> dict[str, Any] | None:
    return run.manifest(stage)["scores"] if stage is not None and run.done(stage) else None


def benchmark_scores(run: Run, recipe: Recipe, rounds: list[Iteration]) -> list[dict[str, Any]]:
    """The scores of every policy on every public benchmark, as in `score.json`; null where that is not done."""
    found: list[dict[str, Any]] = []
    for name in (benchmark_name(one) for one in recipe.evaluation.benchmarks if not isinstance(one, Lettercraft)):
        for one in rounds:
            stages = {stage.name: stage for stage in one.evaluation}
            for prefix, policy in (("base", "base"), ("eval", f"iteration {one.number}")):
                stage = stages.get(f"{prefix}-{name}-score")
                if stage is not None:
                    spending = _spending(run, stages.get(f"{prefix}-{name}-judge"))
                    found.append({"benchmark": name, "policy": policy, "scores": _scores(run, stage), "spending": spending})
    return found


def _spending(run: Run, stage: Stage | None) -> dict[str, float] | None:
    """What the judging of a policy cost this run, and apart from it what it took from earlier calls; null where that is not done."""
    if stage is None or not run.done(stage):
        return None
    counts = run.manifest(stage)["counts"]
    return {name: counts.get(name, 0) for name in ("cost_usd", "estimated_calls", "reused_calls", "reused_usd")}


def benchmark_table(entries: list[dict[str, Any]]) -> Table:
    """Benchmark by policy, with eva's own interval over questions, and what to know about the judging."""
    table = Table(title="benchmarks, eva's 95 % intervals over questions", title_justify="left", box=SIMPLE_HEAD)
    for column in ("benchmark", "policy"):
        table.add_column(column)
    for column in ("score", "official", "questions", "first place", "no verdict", "failed calls", "USD"):
        table.add_column(column, justify="right")
    for entry in entries:
        scores = entry["scores"] or {}
        for task, figures in (scores.get("official") or {}).get("tasks", {}).items():
            error = "" if figures["stderr"] is None else f" ± {figures['stderr']:.3f}"
            table.add_row(f"lm-eval: {task}", entry["policy"], "", f"{figures['value']:.3f}{error}")
        if "tasks" in (scores.get("official") or {}):
            continue
        estimate, judging = scores.get("score"), scores.get("judging") or {}
        table.add_row(
            entry["benchmark"],
            entry["policy"],
            "" if estimate is None else f"{estimate['value']:.2f} [{estimate['low']:.2f}, {estimate['high']:.2f}]",
            _official(scores.get("official") or {}),
            "" if estimate is None else f"{estimate['n']:,}",
            _share(judging.get("first_place")),
            _share(judging.get("parse_failure_rate")),
            _number(judging.get("failed_calls"), "d"),
            _money(judging, entry["spending"] or {}),
        )
    return table


def _money(judging: dict[str, Any], spending: dict[str, float]) -> str:
    """What this run sent to the judge, in dollars; beside it how much of that is estimated, and what earlier calls were used again."""
    usd = spending.get("cost_usd") or judging.get("usd")
    beside = [f"{spending['estimated_calls']:.0f} calls estimated"] if spending.get("estimated_calls") else []
    if spending.get("reused_calls"):
        beside.append(f"{spending['reused_calls']:.0f} calls reused, {dollars(spending['reused_usd'])} when made")
        usd = usd or 0.0
    note = f" ({'; '.join(beside)})" if beside else ""
    return "" if usd is None else f"{dollars(usd)}{note}"


def _official(figures: dict[str, Any]) -> str:
    """The score by the official rules, with the official interval where there is one."""
    if figures.get("score") is None:
        return ""
    interval = figures["ci"] if figures.get("ci_kind") == "official" else None
    return f"{figures['score']:.2f}" + (f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else "")


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def summary_tables(document: dict[str, Any]) -> Group:
    """The summary for a terminal: what each iteration trained on, how its policy does, and where everything lies."""
    base, rounds = document["base"], document["iterations"]
    trained = Table("iteration", title=f"{document['recipe']}: training", title_justify="left", box=SIMPLE_HEAD)
    for column in ("prompts", "evolved", "reward", "gap", "pairs", "loss", "margin", "wall time", "health"):
        trained.add_column(column, justify="right")
    for one in rounds:
        trained.add_row(*_trained(one))
    notes = [f"iteration {one['iteration']}: {_left_out(one)}" for one in rounds]
    notes += [f"iteration {one['iteration']}: {_described(one['analysis'])}" for one in rounds if one["analysis"]]
    notes += [f"iteration {one['iteration']}: {_rewritten(one['rewrites'])}" for one in rounds if one["rewrites"]]
    missing = [f"iteration {one['iteration']}: {name}: {_failed(reasons)}" for one in rounds for name, reasons in one["failures"].items()]
    if document["only"]:
        told = (Text(note, style="dim") for note in missing)
        return Group(benchmark_table(document["benchmarks"]), *told, Text(f"all stages: {document['stages']}"))
    warnings = [f"iteration {one['iteration']}: {said}" for one in rounds if one["health"] for said in one["health"]["warnings"]]
    tables: list[Any] = [
        trained,
        *(Text(note, style="dim") for note in [*notes, *missing]),
        *(Text(said, style="bold red") for said in warnings),
    ]
    if base:
        held_out = Table("policy", title="held out, intervals over prompts", title_justify="left", box=SIMPLE_HEAD)
        for column in ("sampled reward", "greedy reward", "gain over base", "win rate"):
            held_out.add_column(column, justify="right")
        policies = [("base", base["held_out"]), *((f"iteration {one['iteration']}", one["held_out"]) for one in rounds)]
        for name, scores in policies:
            held_out.add_row(name, *(_interval(scores, key) for key in ("sampled", "greedy", "sampled_gain", "win_rate")))
        tables.append(held_out)
    if document["benchmarks"]:
        tables.append(benchmark_table(document["benchmarks"]))
    return Group(*tables, Text(f"policy: {document['policy'] or '-'}\nall stages: {document['stages']}"))


def _trained(one: dict[str, Any]) -> list[str]:
    training, pairs = one["training"] or {}, one["pairs"] or {}
    return [
        "0 (base)" if one["iteration"] == 0 else str(one["iteration"]),
        _number(one["prompts"], "d"),
        _number(one["evolved"], "d"),
        _number(one["mean_reward"] if one["mean_reward"] is not None else training.get("reward"), ".3f"),
        _number(one["mean_gap"], ".3f"),
        _number(pairs.get("pair"), "d"),
        _number(training.get("loss"), ".3f"),
        _number(training.get("reward_margin"), ".3f"),
        f"{one['seconds']:.0f} s" if one["seconds"] else "",
        "" if one["health"] is None else counted(one["health"]["warnings"]) or "good",
    ]


def _left_out(one: dict[str, Any]) -> str:
    """Which evolutions were rejected and which prompts gave no pair, or which responses no reward, and why."""
    evolutions = f"evolutions rejected: {facts(one['rejected'] or {}) or 'none'}"
    if one["unscored"] is not None:
        return f"{evolutions}; responses without a reward: {one['unscored']}"
    no_pair = {reason: count for reason, count in (one["pairs"] or {}).items() if reason != "pair"}
    return f"{evolutions}; prompts without a pair: {facts(no_pair) or 'none'}"


def _failed(failures: dict[str, int]) -> str:
    """How many results of a stage are null, and why."""
    reasons = "; ".join(f"{reason} ({count:,})" for reason, count in list(failures.items())[:SHOWN_REASONS])
    return f"{sum(failures.values()):,} results missing: {reasons}{'; ...' if len(failures) > SHOWN_REASONS else ''}"


def _rewritten(counts: dict[str, int]) -> str:
    """How many chosen responses were rewritten, and why the others were not."""
    kept = {reason: count for reason, count in counts.items() if reason not in ("pair", "rewritten")}
    return f"chosen responses rewritten: {counts.get('rewritten', 0)} of {counts['pair']}; kept as they were: {facts(kept) or 'none'}"


def _described(analysis: dict[str, Any]) -> str:
    """What the prompts are like, in one line."""
    scores = [f"{name} {_number(analysis[name], '.2f') or '?'} of 5" for name in ("quality", "complexity") if name in analysis]
    topics = [f"topics: {facts(analysis['topics']) or 'none'}"] if "topics" in analysis else []
    return f"prompts: {'; '.join([', '.join(scores), *topics] if scores else topics)}"


def _number(value: float | None, form: str) -> str:
    if value is None:
        return ""
    return format(value, form) if abs(value) < WIDEST else f"{value:.3g}"


def _interval(scores: dict[str, Any] | None, name: str) -> str:
    if not scores or name not in scores:
        return ""
    score = scores[name]
    return f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"
