"""One table of text for every command: on a terminal, as Markdown or as CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

Cell = str | float | int | None


def count_text(number: int, noun: str) -> str:
    """As in "720 prompts"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class TextTable:
    """A table: heads, rows of cells (numbers unrounded), and notes below it.

    Attributes:
        alignment: a letter per column, l or r; in upper case the column never wraps. Empty: numbers on the right, texts on the left.
        sums: numbers of the rows that are sums, shown in bold and followed by a line.
    """

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    alignment: str = ""
    sums: frozenset[int] = frozenset()


def as_rich(tables: Iterable[TextTable]) -> Group:
    """The tables for a terminal."""
    parts: list[Any] = []
    for table in tables:
        rich_table = Table(title=Text(table.title), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for index, head in enumerate(table.heads):
            letter = table.alignment[index] if table.alignment else _letter([row[index] for row in table.rows])
            rich_table.add_column(Text(head), justify="left" if letter in "lL" else "right", overflow="fold", no_wrap=letter.isupper())
        for index, row in enumerate(table.rows):
            last = index in table.sums
            rich_table.add_row(*(Text(cell_text(cell)) for cell in row), style="bold" if last else None, end_section=last)
        parts += [rich_table, *(Text(note, style="dim") for note in table.notes), Text("")]
    return Group(*parts[:-1])


def as_markdown(tables: Iterable[TextTable]) -> str:
    """The tables as Markdown; a bar in a cell is escaped."""
    lines = []
    for table in tables:
        lines += [f"**{table.title}**", "", markdown_row(table.heads), markdown_row(["---"] * len(table.heads))]
        lines += [markdown_row([cell_text(cell) for cell in row]) for row in table.rows]
        lines += ["", *(f"{note}  " for note in table.notes), ""]
    return "\n".join(lines).rstrip() + "\n"


def as_csv(table: TextTable) -> str:
    """A table as CSV, numbers in full."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([table.heads, *table.rows])
    return stream.getvalue()


def cell_text(cell: Cell) -> str:
    """A cell as it is shown: two decimals, four below 1; nothing for None."""
    if isinstance(cell, float):
        return f"{cell:.4f}" if abs(cell) < 1 else f"{cell:.2f}"
    return "" if cell is None else str(cell)


def _letter(column: Sequence[Cell]) -> str:
    return "l" if all(isinstance(cell, str | None) for cell in column) else "r"


def markdown_row(cells: Iterable[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
