"""Plots that take their colours from the page that contains them, and the same plots as files with fixed colours.

matplotlib draws with the light palette. In the page every colour is a CSS variable, so dark mode costs nothing; text stays text. A phone
shows one plot per row, a wide screen two. Axis labels with units, and n, are arguments that cannot be left out.
"""

import io
import math
import re
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eva_stages.core.harmless import one_line
from eva_stages.core.kinds import BASE
from eva_stages.publishing.report.palette import CARD, GRID, INK, MUTED_COLOUR, VARIABLES, arm_style, iteration_colour, iteration_style

STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED_COLOUR,
    "xtick.color": MUTED_COLOUR,
    "ytick.color": MUTED_COLOUR,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
WIDTH, HEIGHT = 4.2, 3.1
"""Inches."""
TITLE_CHARACTERS, LABEL_CHARACTERS, NAME_CHARACTERS = 46, 36, 28
LONGEST_TITLE = 150
BINS = 30
Interval = tuple[float, float, float]
"""A value and its interval's ends; NaN where they are not known."""


@dataclass(frozen=True)
class Plot:
    """A finished figure."""

    name: str
    title: str
    n: str
    caption: str
    """What else there is to know."""
    svg: str
    """A standalone document, in the light palette."""
    png: bytes

    @property
    def inline(self) -> Markup:
        """The drawing for the page, in the page's colours."""
        text = re.sub(r"^.*?(?=<svg)", "", self.svg, flags=re.DOTALL)
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        text = re.sub(r'<g id="[^"]*"', "<g", text)
        text = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", text)
        text = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true" focusable="false">', text, count=1)
        for colour, variable in VARIABLES.items():
            text = text.replace(colour, f"var(--{variable})")
        return Markup(text)


def draw(
    name: str,
    title: str,
    n: str,
    x: str,
    y: str,
    paint: Callable[[Axes], None],
    caption: str = "",
    height: float = HEIGHT,
    polar: bool = False,
    legend: bool = True,
) -> Plot:
    """A figure with one pair of axes.

    Args:
        name: of its files.
        n: how much is behind it, as in "n = 720 prompts".
        x, y: axis labels with units.
        paint: draws on the axes.
        caption: what else there is to know, under the figure.
    """
    settings: Any = {**STYLE, "svg.hashsalt": name}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.add_subplot(projection="polar" if polar else None)
        paint(axes)
        axes.set_xlabel(textwrap.fill(x, LABEL_CHARACTERS))
        axes.set_ylabel(textwrap.fill(y, LABEL_CHARACTERS))
        axes.set_title(textwrap.fill(n, TITLE_CHARACTERS), loc="left", fontsize=8.5, color=MUTED_COLOUR)
        heading = textwrap.fill(one_line(title, LONGEST_TITLE), TITLE_CHARACTERS)
        figure.suptitle(heading, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
        if legend and axes.get_legend_handles_labels()[1]:
            figure.legend(loc="outside lower center", ncols=_columns(axes.get_legend_handles_labels()[1]))
        vector = io.StringIO()
        figure.savefig(vector, format="svg", metadata={"Date": None, "Creator": None})
        figure.set_layout_engine("none")  # found once; the second file is laid out the same
        raster = io.BytesIO()
        figure.savefig(raster, format="png", dpi=160, facecolor="white")
    return Plot(name, title, n, caption, vector.getvalue(), raster.getvalue())


def _columns(labels: Sequence[str]) -> int:
    """As many columns as fit, with rows of about equal length."""
    most_columns = max(1, min(len(labels), int(50 / (max(len(label) for label in labels) + 6))))
    return math.ceil(len(labels) / math.ceil(len(labels) / most_columns))


def short(name: str) -> str:
    """A name from data, fit for an axis or a legend."""
    return (
        one_line(name, NAME_CHARACTERS)
        if len(name) <= NAME_CHARACTERS
        else f"{one_line(name[: NAME_CHARACTERS - 1], NAME_CHARACTERS)}\u2026"
    )


def histograms(axes: Axes, samples: Mapping[int, np.ndarray], bins: int = BINS) -> None:
    """Histograms of a sample per iteration, as outlines over the same bins, in percent of each sample per bin."""
    finite_samples = {iteration: values[np.isfinite(values)] for iteration, values in samples.items()}
    all_values = np.concatenate([*finite_samples.values(), np.empty(0)])
    low, high = (all_values.min(), all_values.max()) if len(all_values) else (0.0, 1.0)
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    for iteration, values in finite_samples.items():
        share = 100 * np.histogram(values, edges)[0] / max(len(values), 1)
        style = {**iteration_style(iteration), "linewidth": 1.6}
        del style["marker"]
        axes.stairs(share, edges, label=f"iteration {iteration}", **style)
    axes.set_ylim(bottom=0)


def stacked_bars(axes: Axes, labels: Sequence[str], parts: Mapping[str, Sequence[float]], styles: Sequence[Mapping[str, Any]]) -> None:
    """Bars of shares, one per label, stacked from bottom to top; `styles`: of the parts."""
    bottom = np.zeros(len(labels))
    for (name, values), style in zip(parts.items(), styles, strict=True):
        heights = np.asarray(values, dtype=float)
        axes.bar([short(label) for label in labels], heights, bottom=bottom, label=short(name), width=0.65, **style)
        bottom += heights
    axes.grid(axis="x", visible=False)


def grouped_bars(axes: Axes, names: Sequence[str], groups: Mapping[int, Sequence[float]]) -> None:
    """Horizontal bars, for each name one per iteration, first name on top."""
    places = np.arange(len(names))[::-1]
    thickness = 0.8 / max(len(groups), 1)
    for index, (iteration, values) in enumerate(groups.items()):
        offsets = places + 0.4 - thickness * (index + 0.5)
        lengths = np.asarray(values, dtype=float)
        bars = axes.barh(offsets, lengths, thickness * 0.92, label=f"iteration {iteration}", color=iteration_colour(iteration))
        if len(groups) == 1:
            axes.bar_label(bars, fmt="%.3g", padding=2, fontsize=8)
    axes.set_yticks(places, [short(name) for name in names])
    axes.grid(axis="y", visible=False)


def grouped_points(axes: Axes, names: Sequence[str], groups: Mapping[int, Sequence[float]]) -> None:
    """Points beside each name, one per iteration, first name on top."""
    places = np.arange(len(names))[::-1]
    for iteration, values in groups.items():
        axes.plot(values, places, label=f"iteration {iteration}", **{**iteration_style(iteration), "linestyle": "none"})
    axes.set_yticks(places, [short(name) for name in names])
    axes.xaxis.set_major_locator(MaxNLocator(5))


def outcomes(axes: Axes, labels: Sequence[str], parts: Mapping[str, Sequence[float]], colours: Sequence[str]) -> None:
    """Horizontal bars of shares, one per label, first label on top, their parts side by side."""
    places = np.arange(len(labels))[::-1]
    left_edges = np.zeros(len(labels))
    for (name, values), colour in zip(parts.items(), colours, strict=True):
        axes.barh(places, np.asarray(values, dtype=float), 0.65, left=left_edges, label=name, color=colour)
        left_edges += np.asarray(values, dtype=float)
    axes.set_yticks(places, [short(label) for label in labels])
    axes.grid(axis="y", visible=False)


def iteration_points(
    axes: Axes,
    points: Mapping[int, Interval],
    shift: float = 0.0,
    label: str = "",
    is_hollow: bool = False,
    places: np.ndarray | None = None,
) -> None:
    """A point with its interval per iteration, in the iteration's colour; -1 is the base policy.

    Args:
        points: (value, low, high), NaN where it is not known.
        shift: to the right, where a plot has two points per iteration.
        label: what the points are, if a plot has two per iteration.
        is_hollow: for the first of two.
        places: on the x axis; None: side by side, with the iterations as labels.
    """
    labels = [BASE if iteration < 0 else str(iteration) for iteration in points]
    values = np.array([point[0] for point in points.values()], dtype=float)
    has_labels = places is None
    places = np.arange(len(labels)) + shift if places is None else places
    if not label:
        axes.plot(places, values, color=MUTED_COLOUR, linewidth=1, zorder=1)
    for place, (iteration, point) in zip(places, points.items(), strict=True):
        errors = np.nan_to_num(np.array([[point[0] - point[1]], [point[2] - point[0]]])).clip(min=0)
        colour, marker = iteration_colour(iteration), iteration_style(iteration)["marker"]
        axes.errorbar([place], point[:1], yerr=errors, capsize=3, color=colour, marker=marker, mfc=CARD if is_hollow else None)
    if label:
        axes.plot([], [], color=MUTED_COLOUR, linestyle="none", marker="o", mfc=CARD if is_hollow else None, label=label)
    if has_labels:
        axes.set_xticks(np.arange(len(labels)), labels)
        axes.margins(x=0.15)


def arm_points(axes: Axes, labels: Sequence[str], points: Sequence[Interval], index: int, label: str, shift: float) -> None:
    """Points with intervals over category labels, for the index-th of several runs; NaN where there is none."""
    values, lows, highs = np.array(points, dtype=float).T
    places = np.arange(len(labels)) + shift
    errors = np.vstack([values - lows, highs - values]).clip(min=0)
    axes.errorbar(places, values, yerr=np.nan_to_num(errors), capsize=3, label=short(label), **arm_style(index))
    axes.set_xticks(np.arange(len(labels)), [short(name) for name in labels])
    axes.margins(x=0.15)
