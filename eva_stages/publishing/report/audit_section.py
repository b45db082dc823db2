"""The audit of the run: whether selecting prompts by a metric can work here."""

from eva_stages.core.errors import ConfigError
from eva_stages.publishing.report.section_html import Section, Table
from eva_stages.views.audit_document import audit
from eva_stages.views.audit_tables import audit_tables
from eva_stages.views.history import History

ID, TITLE = "audit", "Can selection work here?"


def audit_section(history: History) -> Section:
    """The verdict first; what is missing where the run cannot be audited yet, or at all."""
    try:
        document = audit(history)
    except ConfigError as error:
        return Section(ID, TITLE, missing=error.faults)
    tables = [Table(table.title, table.heads, table.rows, " ".join(table.notes)) for table in audit_tables(document)]
    return Section(ID, TITLE, [document["verdict"]], tables=tables, missing=document["notes"])
