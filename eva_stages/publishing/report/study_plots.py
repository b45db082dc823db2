"""The plots of a study: a forest plot of its contrasts, and the arms' learning curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from eva_stages.core.text_table import count_text
from eva_stages.publishing.report.numbers import n_of
from eva_stages.publishing.report.palette import INK, MUTED_COLOUR, arm_colour, arm_style
from eva_stages.publishing.report.plots import NAME_CHARACTERS, Plot, draw, short

FOREST_CAPTION = "Point: mean over seeds. Bar: its 95 % interval, not corrected for the number of contrasts. Dots: the seeds."
CURVE_CAPTION = (
    "Thick: mean over seeds as far as all seeds go, or to the budget, with the 95 % interval of Student's t as band. Thin: one line per "
    "seed. First point: the base policy. The contrasts are paired by seed: they can be clear where bands overlap."
)


def forest_plot(document: Mapping[str, Any]) -> Plot | None:
    """The paired differences of every contrast, first contrast on top; None if no seed has a difference."""
    contrasts = document["contrasts"]
    if not any(entry["differences"] for entry in contrasts):
        return None
    places = np.arange(len(contrasts))[::-1]

    def paint(axes: Axes) -> None:
        axes.axvline(0, color=MUTED_COLOUR, linewidth=1, linestyle=":")
        for place, entry in zip(places, contrasts, strict=True):
            values = [difference["difference"] for difference in entry["differences"]]
            axes.plot(values, np.full(len(values), place - 0.22), ".", color=MUTED_COLOUR, alpha=0.7, markersize=4)
            if entry["mean"] is None:
                continue
            errors = None if entry["low"] is None else [[entry["mean"] - entry["low"]], [entry["high"] - entry["mean"]]]
            axes.errorbar([entry["mean"]], [place], xerr=errors, fmt="o", capsize=3, color=INK)
        axes.set_yticks(places, [_contrast_label(entry) for entry in contrasts])
        axes.set_ylim(-0.6, len(contrasts) - 0.4)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="y", visible=False)

    n = n_of((len(entry["differences"]) for entry in contrasts), "seeds")
    height = 1.4 + 0.3 * len(contrasts)
    return draw("study-contrasts", "Paired differences", n, f"difference in {document['measure']}", "", paint, FOREST_CAPTION, height)


def curve_plot(document: Mapping[str, Any]) -> Plot | None:
    """Score against generated tokens, by arm; None if no run has a score."""
    runs = [entry for entry in document["runs"] if entry["curve"]]
    if not runs:
        return None
    scores = [point["score"] for entry in runs for point in entry["curve"]]
    lowest, highest = min(scores), max(scores)
    margin = 0.1 * (highest - lowest) or 0.01
    scale, unit = _scale(max(point["generated_tokens"] for entry in runs for point in entry["curve"]))
    tokens_of_budget = document["budget"].get("generated_tokens")
    alpha = min(0.3, 6 / len(runs))

    def paint(axes: Axes) -> None:
        for index, arm in enumerate(document["arms"]):
            for entry in runs:
                if entry["arm"] == arm["arm"]:
                    axes.plot(*_axes_values(entry["curve"], "score", scale), color=arm_colour(index), linewidth=0.5, alpha=alpha)
            if not arm["curve"]:
                continue
            points = mean_points(arm, tokens_of_budget)
            tokens, means = _axes_values(points, "mean", scale)
            axes.plot(tokens, means, label=short(arm["arm"]), **arm_style(index))
            low, high = (np.array([np.nan if p[name] is None else p[name] for p in points], dtype=float) for name in ("low", "high"))
            axes.fill_between(tokens, low, high, color=arm_colour(index), alpha=0.12, linewidth=0)
        if tokens_of_budget:
            axes.axvline(tokens_of_budget / scale, color=MUTED_COLOUR, linewidth=1, linestyle=":", label="budget")
        axes.set_ylim(lowest - margin, highest + margin)  # bands of two or three seeds are wider than anything else
        axes.xaxis.set_major_locator(MaxNLocator(5))

    x = f"generated tokens{f', {unit}' if unit else ''}"
    return draw("study-curves", "Learning curves", f"n = {count_text(len(runs), 'run')}", x, document["measure"], paint, CURVE_CAPTION, 3.4)


def mean_points(arm: Mapping[str, Any], tokens_of_budget: float | None) -> list[Mapping[str, Any]]:
    """The points of an arm's mean curve that all its seeds have; of a complete arm with a budget of tokens, up to the budget.

    Runs end at different iterations, so that the later means are of other seeds than the earlier ones.
    """
    points = [point for point in arm["curve"] if point["n"] == arm["curve"][0]["n"]]
    if tokens_of_budget is None or arm["done"] < arm["runs"]:
        return points
    return [*(point for point in points if point["generated_tokens"] < tokens_of_budget), arm]


def _contrast_label(entry: Mapping[str, Any]) -> str:
    label = f"{entry['a']} - {entry['b']}"
    if len(label) > NAME_CHARACTERS:
        label = f"{short(entry['a'])}\n- {short(entry['b'])}"
    return label if entry["mean"] is not None else f"{label}\nnot decided"


def _axes_values(curve: Sequence[Mapping[str, Any]], name: str, scale: float) -> tuple[np.ndarray, np.ndarray]:
    return np.array([point["generated_tokens"] for point in curve]) / scale, np.array([point[name] for point in curve])


def _scale(largest_tokens: float) -> tuple[float, str]:
    if largest_tokens < 10_000:
        return 1.0, ""
    return (1e3, "thousands") if largest_tokens < 1e6 else (1e6, "millions")
