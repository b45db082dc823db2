"""What the intervals of an online run trained on, and what became of their evolutions: figures per interval and per optimiser step."""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eva_stages.core.numeric import mean
from eva_stages.core.progress import facts
from eva_stages.core.tables import count_rows, known_means, read_table, reward_matrix
from eva_stages.views.history import Artifact, History

COUNTS = ("late", "busy", "buffer")
"""Counts of the training: evolutions that came too late, steps that drew no parents because others were overdue, prompts in the buffer."""


class Uses(NamedTuple):
    """The uses of prompts in an interval, one entry each."""

    steps: np.ndarray
    rewards: np.ndarray
    """Mean reward of the responses that have one; NaN if none has."""
    scores: np.ndarray
    """By the recipe's metric; NaN where a reward is missing."""
    from_buffer: np.ndarray
    evolved: np.ndarray


def interval_uses(history: History, iteration: int) -> Uses | None:
    """None where the interval's tables are not complete."""
    uses, prompts = history.find("uses", iteration), history.find("mix", iteration)
    if uses is None or prompts is None:
        return None
    table = read_table(uses.content, ["step", "prompt_id", "origin", "rewards", "score"])
    origins = read_table(prompts.content, ["prompt_id", "origin"])
    evolved_ids = origins.filter(pc.equal(origins["origin"], "evolved"))["prompt_id"]
    return Uses(
        table["step"].to_numpy(),
        known_means(reward_matrix(table["rewards"])),
        _numbers(table["score"]),
        pc.equal(table["origin"], "buffer").to_numpy(),
        pc.is_in(table["prompt_id"], value_set=evolved_ids.combine_chunks()).to_numpy(),
    )


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(column.to_numpy(), dtype=np.float64)


def online_figures(history: History, iteration: int) -> dict[str, Any] | None:
    """The figures of an interval; None for iterations that are no interval, or not complete.

    `buffer_share` and `evolved_share` are shares of the uses; an evolved prompt always comes from the buffer. `inserted`: evolutions that
    entered the buffer. `late`, `busy`, `buffer`: see `COUNTS`. Null where the interval did not evolve.
    """
    uses, training = interval_uses(history, iteration), history.find("train", iteration)
    if uses is None or training is None:
        return None
    known_scores = uses.scores[np.isfinite(uses.scores)]
    counts = training.counts
    return {
        "steps": len(np.unique(uses.steps)),
        "uses": len(uses.steps),
        "buffer_share": float(uses.from_buffer.mean()),
        "evolved_share": float(uses.evolved.mean()),
        "mean_score": float(mean(known_scores)) if len(known_scores) else None,
        "without_score": len(uses.scores) - len(known_scores),
        "drawn": _rows(history.find("select", iteration), "draws"),
        "evolutions": _rows(history.find("evolve", iteration), "evolutions"),
        "inserted": _inserted_count(history, iteration),
        **{name: counts.get(name) for name in COUNTS},
    }


def _rows(artifact: Artifact | None, count: str) -> int | None:
    return None if artifact is None else int(artifact.counts[count])


def _inserted_count(history: History, iteration: int) -> int | None:
    last_stage = history.find("gate", iteration) or history.find("curate", iteration)
    return None if last_stage is None else count_rows(last_stage.content)


def online_text(figures: dict[str, Any]) -> str:
    """The figures of an interval in one line."""
    shares = f"{figures['buffer_share']:.0%} from the buffer, {figures['evolved_share']:.0%} evolved".replace("%", " %")
    parts = [f"{figures['steps']} steps, {figures['uses']:,} prompts used: {shares}"]
    names = ("drawn", "evolutions", "inserted", "late")
    if known_counts := {name: figures[name] for name in names if figures[name] is not None}:
        parts.append(facts(known_counts) or "nothing evolved")
    parts += [f"steps without a draw because evolutions were overdue: {figures['busy']}"] if figures["busy"] else []
    parts += [f"prompts without a score: {figures['without_score']:,}"] if figures["without_score"] else []
    parts += [f"buffer: {figures['buffer']:,} prompts"] if figures["buffer"] else []
    return "; ".join(parts)
