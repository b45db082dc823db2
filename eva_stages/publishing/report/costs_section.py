"""What the policies' scores cost: tokens, GPU-hours and money by policy, and by stage of the attempt that finished each."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from eva_stages.core.progress import dollars, duration
from eva_stages.publishing.report.palette import iteration_colour
from eva_stages.publishing.report.plots import Plot, draw, iteration_points, short
from eva_stages.publishing.report.section_html import Cell, Section, Table
from eva_stages.views.history import COST, History
from eva_stages.views.policy_costs import cost_sentence, cost_table, main_measure, policy_costs, policy_order, score_of

MOST_STAGES = 16
MEASURES = (
    ("time", "Time by stage", "time, {unit}"),
    ("output_tokens", "Generated tokens by stage", "tokens"),
    (COST, "Money by stage", "USD"),
)


def costs(history: History) -> Section:
    document = policy_costs(history)
    plots = [*_score_plots(document), *(plot for measure in MEASURES if (plot := _plot(history, *measure)))]
    seconds = sum(artifact.manifest["seconds"] for artifact in history.artifacts)
    lead = [f"{len(history.artifacts)} stages took {duration(seconds)}: {cost_sentence(document['total'])}."]
    lead.append("Stages that ran at the same time count in full.")
    lead.append("Time by stage is that of the attempt that finished it; earlier attempts are under `Plan and actual`.")
    tables = [*([_policy_table(document)] if document["policies"] else []), _table(history)]
    return Section("costs", "Score against cost", lead, plots, tables)


def _score_plots(document: dict[str, Any]) -> list[Plot]:
    """The main held-out score of every policy over what was generated to train it, and over the money that providers got for it."""
    measure = main_measure(document)
    points = [(entry, score) for entry in document["policies"] if (score := score_of(entry, measure))]
    if measure is None or len(points) < 2:
        return []
    title = f"{measure[0]}: {measure[1].replace('_', ' ')}"
    axes_of_cost = [("generated_tokens", "generated tokens"), ("gpu_hours", "GPU-hours"), ("usd", "USD for providers")]
    known_axes = [(name, words) for name, words in axes_of_cost if any(entry[name] for entry, _ in points)]
    return [_score_plot(name, f"{title} over {words}", words, measure, points) for name, words in known_axes]


def _score_plot(
    name: str, title: str, words: str, measure: tuple[str, str], points: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
) -> Plot:
    def paint(axes: Axes) -> None:
        costs_of_policies = np.array([entry[name] or 0 for entry, _ in points], dtype=float)
        intervals = {policy_order(entry["policy"]): (score["value"], score["low"], score["high"]) for entry, score in points}
        iteration_points(axes, intervals, places=costs_of_policies)
        for (entry, score), cost in zip(points, costs_of_policies, strict=True):
            label = entry["policy"].removeprefix("iteration ")
            axes.annotate(label, (cost, score["value"]), (5, 5), textcoords="offset points", fontsize=8)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter("{x:,.4g}" if costs_of_policies.max() < 1000 else "{x:,.0f}")

    n = f"n = {len(points)} policies"
    caption = (
        "Numbers: iteration. Bars: 95 % intervals over questions. Costs are those of all stages that led to the policy, without evaluation."
    )
    return draw(f"score-over-{name.replace('_', '-')}", title, n, words, measure[1].replace("_", " "), paint, caption)


def _policy_table(document: dict[str, Any]) -> Table:
    text_table = cost_table(document)
    note = ". ".join(note[0].upper() + note[1:] for note in text_table.notes)
    return Table("Held-out score against cost", text_table.heads, text_table.rows, f"{note}.")


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
        for number in history.iterations:
            lengths = np.array([amounts[stage].get(number, 0) / scale for stage in top_stages])
            axes.barh(places, lengths, 0.7, left=left_edges, color=iteration_colour(number), label=f"iteration {number}")
            left_edges += lengths
        axes.set_yticks(places, [short(stage) for stage in top_stages])
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter("{x:,.4g}" if largest_amount < 1000 else "{x:,.0f}")
        axes.grid(axis="y", visible=False)

    n = f"n = {len(history.artifacts):,} finished stages"
    return draw(f"cost-{name.replace('_', '-')}", title, n, unit.format(unit=word), "stage", paint, height=1.5 + 0.19 * len(top_stages))


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
            [
                artifact.iteration,
                artifact.stage,
                artifact.manifest["rows"],
                artifact.manifest["seconds"],
                *tokens,
                None if COST not in counts else dollars(counts[COST]),
            ]
        )
    heads = ["iteration", "stage", "rows", "seconds", "input tokens", "output tokens", "USD"]
    return Table("Every stage", heads, rows, is_folded=True)
