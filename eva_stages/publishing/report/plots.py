"""Plots that take their colours from the page that contains them, and the same plots as files with fixed colours.

matplotlib draws with the light palette (Okabe and Ito's, safe for colour-blind eyes; series differ in marker and dash as well). In the
page every colour is a CSS variable, so dark mode costs nothing; text stays text. Small figures, many of them: a phone shows one per row,
a wide screen four. Axis labels with units, and n, are arguments that cannot be left out.
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

from eva_stages.core.harmless import one_line

INK, MUTED_COLOUR, GRID = "#1c2127", "#59626d", "#d4d9df"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#882255")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (6, 1, 1, 1)))
VARIABLES = {INK: "ink", MUTED_COLOUR: "muted", GRID: "grid", **{colour: f"s{index + 1}" for index, colour in enumerate(SERIES)}}
STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 8,
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
    "legend.fontsize": 7.5,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
WIDTH, HEIGHT = 3.8, 2.9
"""Inches."""
TITLE_CHARACTERS, LABEL_CHARACTERS, NAME_CHARACTERS = 50, 36, 28
LONGEST_TITLE = 150


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
        axes.set_title(textwrap.fill(n, TITLE_CHARACTERS), loc="left", fontsize=7.5, color=MUTED_COLOUR)
        figure.suptitle(textwrap.fill(one_line(title, LONGEST_TITLE), TITLE_CHARACTERS), x=0.01, ha="left", fontsize=9, fontweight="bold")
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
    most_columns = max(1, min(len(labels), int(52 / (max(len(label) for label in labels) + 6))))
    return math.ceil(len(labels) / math.ceil(len(labels) / most_columns))


def short(name: str) -> str:
    """A name from data, fit for an axis or a legend."""
    return (
        one_line(name, NAME_CHARACTERS)
        if len(name) <= NAME_CHARACTERS
        else f"{one_line(name[: NAME_CHARACTERS - 1], NAME_CHARACTERS)}\u2026"
    )


def series_style(index: int) -> dict[str, Any]:
    """Colour, marker and dash of the index-th series."""
    return {"color": SERIES[index % len(SERIES)], "marker": MARKERS[index % len(MARKERS)], "linestyle": DASHES[index % len(DASHES)]}


def colour(index: int) -> str:
    return SERIES[index % len(SERIES)]


def histograms(axes: Axes, samples: dict[str, np.ndarray], bins: int = 30) -> None:
    """Outlines of several samples over the same bins, as percent of each sample per bin."""
    finite_samples = {label: values[np.isfinite(values)] for label, values in samples.items()}
    all_values = np.concatenate([*finite_samples.values(), np.empty(0)])
    low, high = (all_values.min(), all_values.max()) if len(all_values) else (0.0, 1.0)
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    for index, (label, values) in enumerate(finite_samples.items()):
        share = 100 * np.histogram(values, edges)[0] / max(len(values), 1)
        axes.stairs(share, edges, label=label, color=colour(index), linestyle=DASHES[index % len(DASHES)], linewidth=1.4)
    axes.set_ylim(bottom=0)


def stacked_bars(axes: Axes, labels: Sequence[str], parts: Mapping[str, Sequence[float]]) -> None:
    """Bars of shares, one per label, stacked from bottom to top."""
    bottom = np.zeros(len(labels))
    for index, (name, values) in enumerate(parts.items()):
        heights = np.asarray(values, dtype=float)
        hatch = None if index < len(SERIES) else "///"
        axes.bar(
            [short(label) for label in labels], heights, bottom=bottom, label=short(name), color=colour(index), hatch=hatch, width=0.65
        )
        bottom += heights
    axes.grid(axis="x", visible=False)


def grouped_bars(axes: Axes, names: Sequence[str], groups: Mapping[str, Sequence[float]]) -> None:
    """Horizontal bars, for each name one per group, first name on top."""
    places = np.arange(len(names))[::-1]
    thickness = 0.8 / max(len(groups), 1)
    for index, (label, values) in enumerate(groups.items()):
        offsets = places + 0.4 - thickness * (index + 0.5)
        bars = axes.barh(offsets, np.asarray(values, dtype=float), thickness * 0.92, label=short(label), color=colour(index))
        if len(groups) == 1:
            axes.bar_label(bars, fmt="%.3g", padding=2, fontsize=7)
    axes.set_yticks(places, [short(name) for name in names])
    axes.grid(axis="y", visible=False)


def outcomes(axes: Axes, labels: Sequence[str], parts: Mapping[str, Sequence[float]], colours: Sequence[str]) -> None:
    """Horizontal bars of shares, one per label, first label on top, their parts side by side."""
    places = np.arange(len(labels))[::-1]
    left_edges = np.zeros(len(labels))
    for (name, values), colour in zip(parts.items(), colours, strict=True):
        axes.barh(places, np.asarray(values, dtype=float), 0.65, left=left_edges, label=name, color=colour)
        left_edges += np.asarray(values, dtype=float)
    axes.set_yticks(places, [short(label) for label in labels])
    axes.grid(axis="y", visible=False)


def interval_points(
    axes: Axes, labels: Sequence[str], points: Sequence[tuple[float, float, float]], index: int = 0, label: str = "", shift: float = 0
) -> None:
    """Points with intervals over category labels; (value, low, high) each, NaN where there is none."""
    values, lows, highs = np.array(points, dtype=float).T
    places = np.arange(len(labels)) + shift
    errors = np.vstack([values - lows, highs - values]).clip(min=0)
    axes.errorbar(places, values, yerr=np.nan_to_num(errors), capsize=3, label=short(label) or None, **series_style(index))
    axes.set_xticks(np.arange(len(labels)), [short(label) for label in labels])
    axes.margins(x=0.15)
