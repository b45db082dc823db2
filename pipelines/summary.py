"""What a run came to, iteration by iteration: the table that `eva run` ends with, and the same as JSON."""

from collections import Counter
from typing import Any

import numpy as np
from rich.table import Table

from eva_stages.core.config import Recipe
from eva_stages.core.stage import Stage
from eva_stages.core.store import Run
from eva_stages.core.tables import count_rows, read_table, reward_matrix
from pipelines.iteration import Iteration

REJECTIONS = ("evolved", "kept")


def summary(run: Run, recipe: Recipe, rounds: list[Iteration]) -> dict[str, Any]:
    """Every figure of the table; null where a stage is not done."""
    base = next((stage for one in rounds for stage in one.evaluation if stage.name == "base-score"), None)
    document: dict[str, Any] = {
        "recipe": recipe.name,
        "run": str(run.root),
        "stages": str(run.stages),
        "base": {"held_out": _scores(run, base)} if base else None,
        "iterations": [_iteration(run, one) for one in rounds],
    }
    last = next((one.solver[-1] for one in reversed(rounds) if run.done(one.solver[-1])), None)
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
        "rejected": _rejected(curate["counts"]) if curate else None,
        **_rewards(run, stages["reward"]),
        "pairs": manifests["pair"]["counts"] if "pair" in manifests else None,
        "training": train["training"] | {"steps": train["counts"]["steps"]} if train else None,
        "held_out": _scores(run, stages.get("eval-score")),
        "seconds": round(sum(manifest["seconds"] for manifest in manifests.values()), 1),
        "done": len(manifests) == len(stages),
    }


def _rejected(counts: Counter[str]) -> dict[str, int]:
    return {reason: count for reason, count in counts.items() if reason not in REJECTIONS and count}


def _rewards(run: Run, stage: Stage) -> dict[str, float | None]:
    if not run.done(stage):
        return {"mean_reward": None, "mean_gap": None}
    rewards = reward_matrix(read_table(run.folder(stage), ["rewards"])["rewards"])
    scored = rewards[np.isfinite(rewards).all(axis=1)]
    if len(scored) == 0:
        return {"mean_reward": None, "mean_gap": None}
    return {"mean_reward": float(scored.mean()), "mean_gap": float(np.ptp(scored, axis=1).mean())}


def _scores(run: Run, stage: Stage | None) -> dict[str, Any] | None:
    return run.manifest(stage)["scores"] if stage is not None and run.done(stage) else None


def summary_table(document: dict[str, Any]) -> Table:
    """The summary for a terminal."""
    table = Table(title=f"{document['recipe']}: held-out scores with 95 % intervals over prompts", title_justify="left")
    columns = ("iteration", "prompts", "evolved", "rejected", "reward", "gap", "pairs", "loss", "margin", "held-out sampled",
               "greedy", "win rate", "wall time")  # fmt: skip
    for column in columns:
        table.add_column(column, justify="left" if column in ("iteration", "rejected") else "right", overflow="fold")
    if document["base"]:
        scores = document["base"]["held_out"]
        table.add_row("base policy", *[""] * 8, _interval(scores, "sampled"), _interval(scores, "greedy"), "", "")
    for one in document["iterations"]:
        table.add_row(*_cells(one))
    table.caption = f"policy: {document['policy'] or '-'}\nall stages: {document['stages']}"
    table.caption_justify = "left"
    return table


def _cells(one: dict[str, Any]) -> list[str]:
    training, pairs = one["training"] or {}, one["pairs"] or {}
    rejected = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in (one["rejected"] or {}).items())
    return [
        "0 (base round)" if one["iteration"] == 0 else str(one["iteration"]),
        _number(one["prompts"], "d"),
        _number(one["evolved"], "d"),
        rejected,
        _number(one["mean_reward"], ".3f"),
        _number(one["mean_gap"], ".3f"),
        _number(pairs.get("pair"), "d"),
        _number(training.get("loss"), ".3f"),
        _number(training.get("reward_margin"), ".3f"),
        _interval(one["held_out"], "sampled"),
        _interval(one["held_out"], "greedy"),
        _interval(one["held_out"], "win_rate"),
        f"{one['seconds']:.0f} s" if one["seconds"] else "",
    ]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _interval(scores: dict[str, Any] | None, name: str) -> str:
    if not scores or name not in scores:
        return ""
    score = scores[name]
    return f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"
