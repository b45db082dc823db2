"""What the run took: time, tokens and money by stage, of the attempt that finished each."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from eva_stages.core.progress import duration
from eva_stages.publishing.report.plots import Plot, colour, draw, short
from eva_stages.publishing.report.section_html import Cell, Section, Table
from eva_stages.views.history import COST, History

MOST_STAGES = 16
MEASURES = (
    ("time", "Time by stage", "wall time, {unit}"),
    ("output_tokens", "Generated tokens by stage", "tokens"),
    (COST, "Money by stage", "USD"),
)


def costs(history: History) -> Section:
    plots = [plot for measure in MEASURES if (plot := _plot(history, *measure))]
    seconds = sum(one.manifest["seconds"] for one in history.artifacts)
    spent = sum(one.manifest["counts"].get(COST, 0) for one in history.artifacts)
    written = sum(one.manifest["counts"].get("output_tokens", 0) for one in history.artifacts)
    money = f"{spent:,.2f} USD for providers" if spent else "no money for providers"
    lead = [f"{len(history.artifacts)} stages took {duration(seconds)}, wrote {written:,.0f} tokens and cost {money}."]
    lead.append("Counted is the attempt that finished a stage; attempts before it and GPU-hours stand under `Plan and actual`.")
    return Section("costs", "Cost and time", lead, plots, [_table(history)])


def _plot(history: History, name: str, title: str, unit: str) -> Plot | None:
    """Bars by stage, the iterations one after another; the smallest stages together."""
    amounts: dict[str, dict[int, float]] = {}
    for one in history.artifacts:
        amount = one.manifest["seconds"] if name == "time" else one.manifest["counts"].get(name, 0)
        amounts.setdefault(one.stage, {})[one.iteration] = amounts.get(one.stage, {}).get(one.iteration, 0) + amount
    ranked = sorted((stage for stage in amounts if sum(amounts[stage].values())), key=lambda stage: -sum(amounts[stage].values()))
    if not ranked:
        return None
    shown, rest = ranked[:MOST_STAGES], ranked[MOST_STAGES:]
    if rest:
        label = f"{len(rest)} others"
        amounts[label] = {number: sum(amounts[stage].get(number, 0) for stage in rest) for number in history.iterations}
        shown.append(label)
    scale, word = _scale(max(sum(amounts[stage].values()) for stage in shown)) if name == "time" else (1.0, "")

    most = max(sum(amounts[stage].values()) for stage in shown) / scale

    def paint(axes: Axes) -> None:
        places, left = np.arange(len(shown))[::-1], np.zeros(len(shown))
        for index, number in enumerate(history.iterations):
            lengths = np.array([amounts[stage].get(number, 0) / scale for stage in shown])
            axes.barh(places, lengths, 0.7, left=left, color=colour(index), label=f"iteration {number}")
            left += lengths
        axes.set_yticks(places, [short(stage) for stage in shown])
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter("{x:,.4g}" if most < 1000 else "{x:,.0f}")
        axes.grid(axis="y", visible=False)

    n = f"n = {len(history.artifacts):,} finished stages"
    return draw(f"cost-{name.replace('_', '-')}", title, n, unit.format(unit=word), "stage", paint, height=1.5 + 0.17 * len(shown))


def _scale(most: float) -> tuple[float, str]:
    if most < 300:
        return 1.0, "s"
    return (60.0, "min") if most < 18000 else (3600.0, "h")


def _table(history: History) -> Table:
    rows: list[list[Cell]] = []
    for one in history.artifacts:
        counts = one.manifest["counts"]
        tokens = [counts.get(name) for name in ("input_tokens", "output_tokens")]
        rows.append([one.iteration, one.stage, one.manifest["rows"], one.manifest["seconds"], *tokens, counts.get(COST)])
    heads = ["iteration", "stage", "rows", "seconds", "input tokens", "output tokens", "USD"]
    return Table("Every stage", heads, rows, folded=True)
