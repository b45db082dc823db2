"""The audit of a run, and of the runs of a study: whether selecting prompts by a metric can work here."""

from collections.abc import Mapping, Sequence
from typing import Any

from eva_stages.core.errors import ConfigError
from eva_stages.publishing.report.section_html import Cell, Section, Table
from eva_stages.views.audit_document import audit
from eva_stages.views.audit_tables import HEADS, audit_tables, figure_text, short_name
from eva_stages.views.history import History
from eva_stages.views.study_audit import audit_sentences

ID, TITLE = "audit", "Can selection work here?"


def audit_section(history: History) -> Section:
    """The verdict first; what is missing where the run cannot be audited yet, or at all."""
    try:
        document = audit(history)
    except ConfigError as error:
        return Section(ID, TITLE, missing=error.faults)
    tables = [Table(table.title, table.heads, table.rows, " ".join(table.notes)) for table in audit_tables(document)]
    return Section(ID, TITLE, [document["verdict"]], tables=tables, missing=document["notes"])


def study_audit_section(entries: Sequence[Mapping[str, Any]]) -> Section:
    """The arms of a study side by side; `entries`: from `study_audit`."""
    names = ("learnable", "reliability", "parent_child", "siblings", "siblings_corrected", "lift", "gain")
    rows: list[list[Cell]] = []
    for entry in entries:
        figures = entry["figures"]
        if figures["siblings"] is not None:
            metric = short_name(entry["judged_metric"])
            rows.append([entry["arm"], metric, figures["siblings"]["n"], *(_text(figures, name) for name in names)])
    heads = ["arm", "metric", "seeds", *(HEADS[name] for name in names)]
    note = (
        "Mean over seeds and its 95 % interval, in the first iteration with evolved prompts. metric: the recipe's; reward_gap where that "
        "does not depend on the rewards or is a function in a file, which an audit does not run. siblings: intraclass correlation; "
        "no noise: divided by the reliability; lift: the metric's mean over children if parents are weighted by it, over uniform."
    )
    reasons = [f"{entry['arm']}: {'; '.join(entry['reasons'])}." for entry in entries if entry["reasons"]]
    tables = [Table("Selection by arm", heads, rows, note)] if rows else []
    return Section(ID, TITLE, audit_sentences(entries), tables=tables, missing=reasons)


def _text(figures: dict[str, Any], name: str) -> str:
    """A figure, with its number of seeds where it is not that of the table's column."""
    figure, text = figures[name], figure_text(figures, name)
    return text if figure is None or figure["n"] == figures["siblings"]["n"] else f"{text}, {figure['n']} seeds"
