"""One table of text for every command: on a terminal, as Markdown or as CSV."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.table import Table
from rich.text import Text

from eva_stages.core.table_layout import Column, fit
from eva_stages.core.terminal import state_style

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
        optional: heads of the columns that a narrow terminal leaves out, the first one first.
    """

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    alignment: str = ""
    sums: frozenset[int] = frozenset()
    optional: Sequence[str] = ()


STATE_HEADS = ("state", "health")
"""Columns whose cells are coloured by their state."""


def as_rich(tables: Iterable[TextTable]) -> Group:
    """The tables for a terminal of any width (`table_layout`). A table without rows is its title and its notes."""
    parts: list[RenderableType] = []
    for table in tables:
        parts += [_FittingTable(table), Text("")]
    return Group(*parts[:-1])


@dataclass(frozen=True)
class _FittingTable:
    table: TextTable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        table = self.table
        columns = [
            Column(head, [cell_text(row[index]) for row in table.rows], _letter(table, index)) for index, head in enumerate(table.heads)
        ]
        layout = fit(columns, table.optional, options.max_width)
        if table.title:
            yield Text(table.title, style="bold")
        for block in layout.blocks if table.rows else []:
            yield Text("")
            yield _rich_table(block, table.sums)
        notes = list(table.notes)
        if layout.hidden_heads:
            notes.append(f"not shown: {', '.join(layout.hidden_heads)}; a wider terminal shows all columns")
        if table.rows and notes:
            yield Text("")
        yield from (Text(note, style="dim") for note in notes)


def _rich_table(columns: Sequence[Column], sums: frozenset[int]) -> Table:
    rich_table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    for column in columns:
        rich_table.add_column(Text(column.head), justify="left" if column.is_text else "right", overflow="fold", width=column.width)
    cells = [
        [Text(cell, style=state_style(cell) if column.head in STATE_HEADS else "") for cell in column.fitted_cells()] for column in columns
    ]
    for index, row in enumerate(zip(*cells, strict=True)):
        rich_table.add_row(*row, style="bold" if index in sums else None, end_section=index in sums)
    return rich_table


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


def _letter(table: TextTable, index: int) -> str:
    if table.alignment:
        return table.alignment[index]
    return "l" if all(isinstance(row[index], str | None) for row in table.rows) else "r"


def markdown_row(cells: Iterable[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
