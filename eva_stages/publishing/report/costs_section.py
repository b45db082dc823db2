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
    ("time", "Time by stage", "time, {unit}"),
    ("output_tokens", "Generated tokens by stage", "tokens"),
    (COST, "Money by stage", "USD"),
)


def costs(history: History) -> Section:
    plots = [plot for measure in MEASURES if (plot := _plot(history, *measure))]
    seconds = sum(artifact.manifest["seconds"] for artifact in history.artifacts)
    spent_usd = sum(artifact.manifest["counts"].get(COST, 0) for artifact in history.artifacts)
    output_tokens = sum(artifact.manifest["counts"].get("output_tokens", 0) for artifact in history.artifacts)
    money = f"{spent_usd:,.2f} USD for providers" if spent_usd else "no money for providers"
    lead = [f"{len(history.artifacts)} stages took {duration(seconds)}, wrote {output_tokens:,.0f} tokens and cost {money}."]
    lead.append("Stages that ran at the same time count in full.")
    lead.append("Only the attempt that finished a stage counts; earlier attempts and GPU-hours are under `Plan and actual`.")
    return Section("costs", "Cost and time", lead, plots, [_table(history)])


def _plot(history: History, name: str, title: str, unit: str) -> Plot | None:
    """Bars by stage, the iterations one after another; the smallest stages together."""
    amounts: dict[str, dict[int, float]] = {}
    for artifact in history.artifacts:
        amount = artifact.manifest["seconds"] if name == "time" else artifact.manifest["counts"].get(name, 0)
        amounts.setdefault(artifact.stage, {})[artifact.iteration] = amounts.get(artifact.stage, {}).get(artifact.iteration, 0) + amount
    ranking = sorted((stage for stage in amounts if sum(amounts[stage].values())), key=lambda stage: -sum(amounts[stage].values()))
    if not ranking:
        return None
    top_stages, rest = ranking[:MOST_STAGES], ranking[MOST_STAGES:]
    if rest:
        label = f"{len(rest)} others"
        amounts[label] = {number: sum(amounts[stage].get(number, 0) for stage in rest) for number in history.iterations}
        top_stages.append(label)
    scale, word = _scale(max(sum(amounts[stage].values()) for stage in top_stages)) if name == "time" else (1.0, "")

    largest_amount = max(sum(amounts[stage].values()) for stage in top_stages) / scale

    def paint(axes: Axes) -> None:
        places, left_edges = np.arange(len(top_stages))[::-1], np.zeros(len(top_stages))
        for index, number in enumerate(history.iterations):
            lengths = np.array([amounts[stage].get(number, 0) / scale for stage in top_stages])
            axes.barh(places, lengths, 0.7, left=left_edges, color=colour(index), label=f"iteration {number}")
            left_edges += lengths
        axes.set_yticks(places, [short(stage) for stage in top_stages])
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter("{x:,.4g}" if largest_amount < 1000 else "{x:,.0f}")
        axes.grid(axis="y", visible=False)

    n = f"n = {len(history.artifacts):,} finished stages"
    return draw(f"cost-{name.replace('_', '-')}", title, n, unit.format(unit=word), "stage", paint, height=1.5 + 0.17 * len(top_stages))


def _scale(largest_amount: float) -> tuple[float, str]:
    if largest_amount < 300:
        return 1.0, "s"
    return (60.0, "min") if largest_amount < 18000 else (3600.0, "h")


def _table(history: History) -> Table:
    rows: list[list[Cell]] = []
    for artifact in history.artifacts:
        counts = artifact.manifest["counts"]
        tokens = [counts.get(name) for name in ("input_tokens", "output_tokens")]
        rows.append(
            [artifact.iteration, artifact.stage, artifact.manifest["rows"], artifact.manifest["seconds"], *tokens, counts.get(COST)]
        )
    heads = ["iteration", "stage", "rows", "seconds", "input tokens", "output tokens", "USD"]
    return Table("Every stage", heads, rows, is_folded=True)
