"""An audit as tables of at most 80 columns for the terminal."""

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from eva_stages.core.text_table import TextTable, as_rich
from eva_stages.views.audit_document import interval_text

MEASUREMENT = ("reliability", "parent_child", "siblings", "siblings_corrected")
CONSEQUENCES = ("lift", "lift_of_variance", "influence", "gain")
HEADS = {
    "reliability": "reliability",
    "parent_child": "parent-child",
    "siblings": "siblings",
    "siblings_corrected": "no noise",
    "lift": "lift, %",
    "lift_of_variance": "variance, %",
    "influence": "influence",
    "gain": "gain",
    "learnable": "learnable",
}
MEASUREMENT_NOTES = (
    "reliability: split-half, Spearman-Brown. parent-child: correlation.",
    "siblings: ICC(1); no noise: divided by the reliability. 95 % intervals.",
    "Empty: not defined, as where all values are equal.",
)
CONSEQUENCE_NOTES = (
    "lift: the metric's mean over children if parents are weighted by it, over",
    "uniform (n: parents); variance: the same of the children's reward variance.",
    "influence, gain: rank correlation with the fall of the held-out loss by one",
    "step on the prompt's pair, and with the gain in mean reward after training.",
)


def audit_view(document: dict[str, Any]) -> RenderableType:
    """The verdict, the tables, and the notes."""
    notes = [Text(note, style="dim") for note in document["notes"]]
    return Group(Text(document["verdict"], style="bold"), Text(""), as_rich(audit_tables(document)), *([Text("")] if notes else []), *notes)


def audit_tables(document: dict[str, Any]) -> list[TextTable]:
    """Per metric what can be measured and what follows from it, and the judged metric by iteration."""
    metrics, name = document["metrics"], document["judged_metric"]
    learnable = document["learnable"]
    sample = f"iteration {document['iteration']}, {document['responses']} responses each"
    tables = [
        _metric_table(f"Measured and heritable? {sample}", metrics, MEASUREMENT, MEASUREMENT_NOTES),
        _metric_table(f"What follows: {sample}", metrics, CONSEQUENCES, CONSEQUENCE_NOTES),
    ]
    names = ("learnable", "reliability", "siblings", "lift")
    rows = [[line["iteration"], *(figure_text(line, figure) for figure in names)] for line in document["iterations"]]
    rule = f"learnable: {learnable['rule']}"
    note = (
        f"{rule}, {interval_text(learnable)} of n = {learnable['n']:,} in iteration {document['iteration']}" if "n" in learnable else rule
    )
    heads = ["iteration", *(HEADS[figure] for figure in names)]
    return [*tables, TextTable(f"{name} by iteration", heads, rows, (note,), "r" * len(heads))]


def _metric_table(title: str, metrics: dict[str, Any], names: tuple[str, ...], notes: tuple[str, ...]) -> TextTable:
    """A row per metric, after a row with the number of prompts (or families) that each column is based on."""
    sizes = [_size(metrics, figure) for figure in names]
    rows = [
        ["n", *sizes],
        *([short_name(name), *(figure_text(figures, figure) for figure in names)] for name, figures in metrics.items()),
    ]
    return TextTable(title, ["metric", *(HEADS[figure] for figure in names)], rows, notes, "l" + "r" * len(names))


def figure_text(figures: dict[str, Any], name: str) -> str:
    """A figure with its interval; of a lift in percent, as in "7 [-2 15]"."""
    figure = figures[name]
    if figure is None or not name.startswith("lift"):
        return interval_text(figure)
    return "{} [{} {}]".format(*(round(100 * figure[part]) for part in ("value", "low", "high")))


def _size(metrics: dict[str, Any], name: str) -> str:
    sizes = {figures[name]["n"] for figures in metrics.values() if figures[name] is not None}
    return " to ".join(f"{size:,}" for size in sorted({min(sizes), max(sizes)})) if sizes else "-"


def short_name(metric: str) -> str:
    """A metric's name in a narrow table."""
    return metric.removeprefix("reward_").replace("_minus_", " - ").replace("_", " ")
