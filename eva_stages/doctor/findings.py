"""What `eva doctor` found out about this machine: rows, each with a state, a value, and what to do."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from eva_stages.core.text_table import TextTable, count_text

GIB = 2**30


class State(StrEnum):
    """Of what was checked."""

    OK = "ok"
    WARNING = "warning"
    """It works, or may work, in a way that the user should know about."""
    ERROR = "error"
    """It cannot work: exit code 1."""
    ABSENT = "not here"
    """Optional, and not on this machine."""
    OMISSION = "skipped"
    """Not checked; the value says why."""


class Row(NamedTuple):
    """What was found about one thing."""

    name: str
    state: State
    value: str
    fix: str = ""
    """What to do; empty if nothing has to be done."""


Sections = Mapping[str, Sequence[Row]]
"""Rows by the title of their section."""


def size_text(amount: float) -> str:
    """Bytes in GiB, or in MiB below one GiB."""
    return f"{amount / GIB:,.0f} GiB" if amount >= GIB else f"{amount / 2**20:,.0f} MiB"


def document(sections: Sections) -> dict[str, Any]:
    """The rows for JSON."""
    rows = [{"section": title, **row._asdict()} for title, section_rows in sections.items() for row in section_rows]
    return {"rows": rows, "counts": {state: sum(row["state"] == state for row in rows) for state in State}}


def tables(content: Mapping[str, Any]) -> list[TextTable]:
    """The tables of a document, one per section, for 80 columns; the last one ends with what to do next."""
    titles = list(dict.fromkeys(row["section"] for row in content["rows"]))
    return [
        TextTable(
            title,
            ("state", "what", "value and -> what to do"),
            [
                (row["state"], row["name"], row["value"] + (f"\n-> {row['fix']}" if row["fix"] else ""))
                for row in content["rows"]
                if row["section"] == title
            ],
            [_verdict(content["counts"])] if title == titles[-1] else [],
            alignment="LLl",
        )
        for title in titles
    ]


def _verdict(counts: Mapping[str, int]) -> str:
    errors, warnings = counts[State.ERROR], counts[State.WARNING]
    summary = f"{count_text(errors, 'error')}, {count_text(warnings, 'warning')}"
    if errors:
        return f"{summary}. What has an error does not work here: do what stands behind its arrow, then run eva doctor again."
    return f"{summary}: nothing is broken. With --deep, eva doctor also runs every engine that can run here, on tiny models."
