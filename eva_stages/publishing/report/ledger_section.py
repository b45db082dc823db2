"""What the stages took against what was planned for them when the run started."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from eva_stages.core.ledger import read_ledger, sums
from eva_stages.core.progress import dollars, duration
from eva_stages.core.run_folder import Run
from eva_stages.publishing.report.palette import GRID, MUTED_COLOUR, iteration_colour
from eva_stages.publishing.report.plots import Plot, draw
from eva_stages.publishing.report.section_html import Cell, Section, Table
from eva_stages.views.history import History

HEADS = (
    "stages",
    "seconds",
    "planned",
    "from",
    "to",
    "earlier attempts",
    "their seconds",
    "tokens in",
    "tokens out",
    "GPU-hours",
    "MB",
    "USD",
)


def ledger(history: History) -> Section:
    entries = read_ledger(Run(history.root), [artifact.manifest for artifact in history.artifacts])
    total = sums(entries)
    lead, missing = [], []
    if total["compared_seconds"] is None:
        missing.append("No times were planned for this run's stages; `eva plan RECIPE --measure` before `eva run` measures them.")
    else:
        low, high = duration(total["planned_seconds_low"]), duration(total["planned_seconds_high"])
        plan_text = f"{duration(total['planned_seconds_expected'])} planned, between {low} and {high}"
        ratio = total["compared_seconds"] / total["planned_seconds_expected"] if total["planned_seconds_expected"] else None
        share = "" if ratio is None else f", {ratio:.0%} of the plan"
        lead.append(f"{total['compared_stages']} stages took {duration(total['compared_seconds'])}, with {plan_text}{share}.")
    if total["earlier_attempts"]:
        lost_time = duration(total["earlier_seconds"])
        lead.append(f"Attempts that did not finish their stage: {total['earlier_attempts']}, which took {lost_time} as far as is known.")
    if total["reused_stages"]:
        lead.append(f"{total['reused_stages']} stages were computed by other runs of the same store; their time and cost count there.")
    if names := sorted({name for entry in entries for name in entry["gpu_names"] or ()}):
        lead.append(f"GPUs: {', '.join(names)}.")
    lead.append("A stage's plan is the latest plan before it ran.")
    numbers = sorted({entry["iteration"] for entry in entries})
    plots = [plot] if (plot := _plot(entries, numbers)) else []
    return Section("plan", "Plan and actual", lead, plots, [_by_iteration(entries, numbers), _by_stage(entries)], missing)


def _plot(entries: list[dict[str, Any]], numbers: list[int]) -> Plot | None:
    """Planned with its interval beside actual time, by iteration."""
    totals = [sums([entry for entry in entries if entry["iteration"] == number]) for number in numbers]
    if not totals or any(total["compared_seconds"] is None for total in totals):
        return None
    names = ("planned_seconds_low", "planned_seconds_expected", "planned_seconds_high", "compared_seconds")
    low, planned_minutes, high, took = (np.array([total[name] for total in totals]) / 60 for name in names)
    places = np.arange(len(numbers))

    def paint(axes: Axes) -> None:
        axes.bar(places - 0.2, planned_minutes, 0.36, color=GRID, label="planned")
        axes.errorbar(
            places - 0.2, planned_minutes, [planned_minutes - low, high - planned_minutes], fmt="none", ecolor=MUTED_COLOUR, capsize=4
        )
        axes.bar(places + 0.2, took, 0.36, color=[iteration_colour(number) for number in numbers], label="actual")
        axes.set_xticks(places, [str(number) for number in numbers])
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="x", visible=False)

    compared_count = sum(total["compared_stages"] for total in totals)
    return draw("plan-time", "Planned and actual time", f"n = {compared_count:,} stages", "iteration", "minutes", paint)


def _row(name: Cell, entries: list[dict[str, Any]]) -> list[Cell]:
    total = sums(entries)
    gpu, bytes_written = total["gpu_seconds"], total["bytes"]
    return [
        name,
        total["stages"],
        total["seconds"],
        *(total[f"planned_seconds_{entry}"] for entry in ("expected", "low", "high")),
        total["earlier_attempts"],
        total["earlier_seconds"],
        total["input_tokens"],
        total["output_tokens"],
        None if gpu is None else gpu / 3600,
        None if bytes_written is None else bytes_written / 1e6,
        None if total["usd"] is None else dollars(total["usd"]),
    ]


def _by_iteration(entries: list[dict[str, Any]], numbers: list[int]) -> Table:
    rows = [_row(number, [entry for entry in entries if entry["iteration"] == number]) for number in numbers]
    note = "Planned times cover the stages with a planned time; cells without a measurement are empty."
    return Table("By iteration", ("iteration", *HEADS), [*rows, _row("all", entries)] if rows else [], note)


def _by_stage(entries: list[dict[str, Any]]) -> Table:
    rows = [[cell for index, cell in enumerate(_row(entry["stage"], [entry])) if index != 1] for entry in entries]
    return Table("By stage", ("stage", *HEADS[1:]), rows, is_folded=True)
