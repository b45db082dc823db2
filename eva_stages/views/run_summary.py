"""What a run came to, iteration by iteration: the table that `eva run` ends with, and the same as JSON."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from eva_stages.core.kinds import BASE, EVAL, JUDGE, KINDS, LETTERCRAFT, SCORE, stage_name
from eva_stages.core.numeric import mean
from eva_stages.core.parts import FAILED_CALLS
from eva_stages.core.progress import dollars, facts
from eva_stages.core.run_folder import Run
from eva_stages.core.tables import read_table, reward_matrix
from eva_stages.creator.informativeness import reward_gap
from eva_stages.views.history import Artifact, History

SHOWN_REASONS = 3
WIDEST = 1e9
"""Larger figures are written with an exponent."""


def summary(history: History) -> dict[str, Any]:
    """Every figure of the table; null where a stage is not complete."""
    run = Run(history.root)
    trained = history.every("train")
    base_name = stage_name(SCORE, LETTERCRAFT, BASE)
    return {
        "recipe": history.recipe_name,
        "only": history.evaluation_only,
        "run": str(run.root),
        "stages": str(run.stages),
        "base": {"held_out": _scores(history.one(base_name, 0))} if history.planned(base_name, 0) else None,
        "iterations": [_iteration(history, number) for number in history.planned_iterations],
        "benchmarks": benchmark_scores(history),
        "policy": str(trained[-1].content) if trained else None,
    }


def _iteration(history: History, number: int) -> dict[str, Any]:
    planned = [stage for stage in history.stages if stage.iteration == number]
    artifacts = {artifact.stage: artifact for artifact in history.artifacts if artifact.iteration == number}
    counts = {name: artifact.manifest["counts"] for name, artifact in artifacts.items()}
    prompts, train, health = history.prompt_sets.get(number), artifacts.get("train"), artifacts.get("health")
    failures = {name: reasons for name, artifact in artifacts.items() if (reasons := artifact.manifest.get("failures"))}
    return {
        "iteration": number,
        "prompts": history.size(prompts) if prompts else None,
        "evolved": counts["curate"]["kept"] if "curate" in counts else None,
        "rejected": _rejected(counts) if "curate" in counts else None,
        **_rewards(artifacts.get("reward")),
        "failures": failures,
        "pairs": counts.get("pair"),
        "rewrites": counts.get("rewritten"),
        "unscored": train.manifest["counts"].get("unscored") if train else None,
        "training": train.manifest["training"] | {"steps": train.manifest["counts"]["steps"]} if train else None,
        "analysis": _analysis(artifacts),
        "held_out": _scores(artifacts.get(stage_name(SCORE, LETTERCRAFT, EVAL))),
        "health": {"figures": health.manifest["figures"], "warnings": health.warnings} if health else None,
        "seconds": round(sum(artifact.manifest["seconds"] for artifact in artifacts.values()), 1),
        "done": len(artifacts) == len(planned),
    }


def _rejected(counts: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Why curating and decontaminating rejected evolutions."""
    contaminated = {"contaminated": counts["decontaminate"]["contaminated"]} if "decontaminate" in counts else {}
    reasons = {**counts["curate"], **contaminated}
    return {reason: count for reason, count in reasons.items() if reason not in (*KINDS["curate"].kept_counts, FAILED_CALLS) and count}


def _rewards(artifact: Artifact | None) -> dict[str, float | None]:
    unknown: dict[str, float | None] = {"mean_reward": None, "mean_gap": None}
    if artifact is None:
        return unknown
    rewards = reward_matrix(read_table(artifact.content, ["rewards"])["rewards"])
    scored = rewards[np.isfinite(rewards).all(axis=1)]
    return {"mean_reward": float(mean(scored)), "mean_gap": float(mean(reward_gap(scored)))} if len(scored) else unknown


def _analysis(artifacts: Mapping[str, Artifact]) -> dict[str, Any] | None:
    """Mean quality and complexity of the prompts and the number of prompts by topic; null where the recipe does not ask for them."""
    document: dict[str, Any] = {}
    if scores := artifacts.get("analyse-scores"):
        table = read_table(scores.content, ["quality", "complexity"])
        document |= {name: pc.mean(table[name]).as_py() for name in table.column_names}
        document["unscored"] = scores.manifest["counts"].get("unscored", 0)
    if topics := artifacts.get("analyse-topics"):
        labels = read_table(topics.content, ["topic"])["topic"].drop_null().to_pylist()
        document["topics"] = dict(Counter(map(str, labels)).most_common())
        document["unlabelled"] = topics.manifest["counts"].get("unlabelled", 0)
    return document or None


def _scores(artifact: Artifact | None) -> dict[str, Any] | None:
    return artifact.manifest["scores"] if artifact else None


def benchmark_scores(history: History) -> list[dict[str, Any]]:
    """The scores of every policy on every public benchmark, as in `score.json`; null where that is not complete."""
    of_benchmarks = [stage for stage in history.stages if stage.parsed_name.benchmark not in (None, LETTERCRAFT)]
    entries = []
    for name in dict.fromkeys(stage.parsed_name.benchmark for stage in of_benchmarks):
        score_stages = [stage for stage in of_benchmarks if stage.parsed_name.benchmark == name and stage.parsed_name.kind == SCORE]
        for stage in sorted(score_stages, key=lambda stage: (stage.iteration, stage.parsed_name.side != BASE)):
            parsed = stage.parsed_name
            judged = history.one(stage_name(JUDGE, name, parsed.side), stage.iteration)
            policy, spending = parsed.policy(stage.iteration), _spending(judged)
            entries.append({"benchmark": name, "policy": policy, "scores": _scores(history.artifact(stage)), "spending": spending})
    return entries


def _spending(judged: Artifact | None) -> dict[str, float] | None:
    """What judging a policy cost this run, and separately what it reused of earlier calls; null where it is not complete."""
    if judged is None:
        return None
    counts = judged.manifest["counts"]
    return {name: counts.get(name, 0) for name in ("cost_usd", "estimated_calls", "reused_calls", "reused_usd")}


def counted_warnings(warnings: Sequence[str]) -> str:
    """As in "2 warnings"; nothing for none."""
    return f"{len(warnings)} warning{'s' if len(warnings) > 1 else ''}" if warnings else ""


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
        "" if one["health"] is None else counted_warnings(one["health"]["warnings"]) or "good",
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
