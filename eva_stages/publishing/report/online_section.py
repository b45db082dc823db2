"""Online training: what its steps trained on, how informative that was, and what became of the evolutions."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pyarrow.compute as pc
from matplotlib.axes import Axes

from eva_stages.core.text_table import count_text
from eva_stages.publishing.report.numbers import sizes, table
from eva_stages.publishing.report.palette import EVOLVED, INK, START
from eva_stages.publishing.report.plots import BINS, Plot, draw, grouped_bars, histograms, stacked_bars
from eva_stages.publishing.report.section_html import Cell, Section, Table
from eva_stages.views.history import History
from eva_stages.views.online_figures import Uses, interval_uses, online_figures

STYLES: dict[str, dict[str, Any]] = {
    "original, in its turn": {"color": START, "linestyle": ":"},
    "original, from the buffer": {"color": INK, "linestyle": "--"},
    "from the buffer": {"color": INK, "linestyle": "--"},
    "evolved": {"color": EVOLVED, "linestyle": "-"},
}
MOST_POINTS = 60
"""Of a line over steps; each is a mean over neighbouring steps."""
USE_COLUMNS = {
    "steps": "steps",
    "uses": "prompts used",
    "buffer_share": "share from the buffer",
    "evolved_share": "share evolved",
    "mean_score": "mean score",
    "without_score": "without a score",
    "buffer": "buffer",
}
EVOLUTION_COLUMNS = {
    "drawn": "drawn to be evolved",
    "evolutions": "evolutions",
    "inserted": "inserted",
    "late": "too late",
    "busy": "steps without a draw",
}
USE_NOTE = (
    "Share evolved: of all uses; an evolved prompt is always drawn from the buffer. Score: the recipe's metric of the prompt's rewards at "
    "that step. Buffer: prompts in it at the end."
)
EVOLUTION_NOTE = "Steps without a draw: evolutions were overdue, so no further prompts were drawn."


def online(history: History) -> Section | None:
    """None for runs that do not evolve prompts during training."""
    if not history.is_online:
        return None
    uses = [uses for iteration in history.iterations if (uses := interval_uses(history, iteration)) is not None]
    if not uses:
        return Section("online", "Evolving while training", missing=["No interval is complete yet."])
    all_uses = Uses(*(np.concatenate(parts) for parts in zip(*uses, strict=True)))
    plots = [_shares(all_uses), _by_origin(all_uses, "reward"), _by_origin(all_uses, "score")]
    fates = _fates(history)
    plots += [_fate_plot(fates)] if fates else []
    plots += _buffer_plots(history)
    return Section("online", "Evolving while training", [], plots, [entry for entry in _tables(history) if entry.rows])


def _tables(history: History) -> list[Table]:
    figures = {iteration: entry for iteration in history.iterations if (entry := online_figures(history, iteration))}
    use_rows: list[list[Cell]] = [[iteration, *(entry[name] for name in USE_COLUMNS)] for iteration, entry in figures.items()]
    evolution_rows: list[list[Cell]] = [
        [iteration, *(entry[name] for name in EVOLUTION_COLUMNS)] for iteration, entry in figures.items() if entry["evolutions"] is not None
    ]
    return [
        Table("Intervals", ["iteration", *USE_COLUMNS.values()], use_rows, USE_NOTE),
        Table("Evolutions of the intervals", ["iteration", *EVOLUTION_COLUMNS.values()], evolution_rows, EVOLUTION_NOTE),
    ]


def _lines(steps: np.ndarray, parts: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> tuple[Callable[[Axes], None], int]:
    """What draws a line per part, and the steps behind a point.

    Args:
        steps: of each use.
        parts: by name, the values of the uses, NaN = not known, and whether a use is part of it.
    """
    first, last = int(steps.min()), int(steps.max())
    width = -(-(last - first + 1) // MOST_POINTS)
    bins = (steps - first) // width
    centres = first + width * np.arange(bins.max() + 1) + (width - 1) / 2

    def paint(axes: Axes) -> None:
        for name, (values, is_part) in parts.items():
            is_known = is_part & np.isfinite(values)
            sums, counts = (np.bincount(bins[is_known], weights, len(centres)) for weights in (values[is_known], None))
            is_shown = counts > 0
            marker = None if is_shown.sum() > 1 else "o"
            axes.plot(centres[is_shown], sums[is_shown] / counts[is_shown], label=name, marker=marker, **STYLES[name])

    return paint, width


def _note(width: int) -> str:
    return f"Each point is a mean over {width} steps." if width > 1 else ""


def _shares(uses: Uses) -> Plot:
    every_use = np.ones(len(uses.steps), dtype=bool)
    parts = {"from the buffer": (100.0 * uses.from_buffer, every_use), "evolved": (100.0 * uses.evolved, every_use)}
    paint, width = _lines(uses.steps, parts)

    def paint_shares(axes: Axes) -> None:
        paint(axes)
        axes.set_ylim(0, 100)

    n = f"n = {count_text(len(uses.steps), 'use')} of prompts"
    return draw("online-shares", "What steps trained on", n, "optimiser step", "share of prompts, %", paint_shares, _note(width))


def _by_origin(uses: Uses, name: str) -> Plot:
    values = uses.rewards if name == "reward" else uses.scores
    origins = {
        "original, in its turn": ~uses.from_buffer,
        "original, from the buffer": uses.from_buffer & ~uses.evolved,
        "evolved": uses.evolved,
    }
    paint, width = _lines(uses.steps, {origin: (values, is_part) for origin, is_part in origins.items() if is_part.any()})
    title = {"reward": "Reward of the prompts that steps trained on", "score": "Score of the prompts that steps trained on"}[name]
    unit = {"reward": "mean reward", "score": "mean score (the recipe's metric)"}[name]
    n = f"n = {count_text(int(np.isfinite(values).sum()), 'use')} of prompts"
    return draw(f"online-{name}", title, n, "optimiser step", unit, paint, _note(width))


def _buffer_plots(history: History) -> list[Plot]:
    """Origins and scores of the prompts in the buffer at the end of each interval."""
    buffers = {
        artifact.iteration: rows for artifact in history.every("buffer") if (rows := table(artifact, ["score", "origin"])) and len(rows)
    }
    if not buffers:
        return []
    labels = [str(iteration) for iteration in buffers]
    shares = {
        origin: [100 * (pc.mean(pc.equal(rows["origin"], origin).cast("float64")).as_py() or 0.0) for rows in buffers.values()]
        for origin in ("original", "evolved")
    }
    scores = {iteration: rows["score"].to_numpy() for iteration, rows in buffers.items()}
    paint_origins = partial(stacked_bars, labels=labels, parts=shares, styles=[{"color": START}, {"color": EVOLVED}])
    n, percent = sizes(scores, "prompts"), "share of prompts, %"
    unit, note = "score (the recipe's metric)", f"Histogram of {BINS} equal bins."
    return [
        draw("buffer-origins", "Prompts in the buffer", n, "iteration", percent, paint_origins),
        draw("buffer-scores", "Scores in the buffer", n, unit, "share of prompts per bin, %", lambda axes: histograms(axes, scores), note),
    ]


def _fates(history: History) -> dict[int, dict[str, int]]:
    """Evolutions by iteration and fate."""
    counts: dict[int, dict[str, int]] = {}
    for artifact in history.every("evolve"):
        rows = table(artifact, ["fate"])
        if rows is not None and len(rows):
            values = rows["fate"].value_counts().to_pylist()
            counts[artifact.iteration] = {str(entry["values"]): int(entry["counts"]) for entry in values}
    return counts


def _fate_plot(fates: dict[int, dict[str, int]]) -> Plot:
    totals: dict[str, int] = {}
    for counts in fates.values():
        for fate, count in counts.items():
            totals[fate] = totals.get(fate, 0) + count
    names = sorted(totals, key=lambda fate: (fate != "inserted", -totals[fate]))
    groups = {iteration: [counts.get(fate, 0) for fate in names] for iteration, counts in fates.items()}
    n = f"n = {count_text(sum(totals.values()), 'evolution')}"
    labels = [_fate_text(fate) for fate in names]
    height = 1.4 + 0.22 * len(names) * max(1, len(groups)) ** 0.5
    title = "What became of the evolutions"
    return draw("online-fates", title, n, "evolutions", "fate", lambda axes: grouped_bars(axes, labels, groups), height=height)


def _fate_text(fate: str) -> str:
    return fate.removeprefix("rejected:").replace(":", ": ").replace("_", " ")
