"""How a table fits the width of a terminal: text wraps, then optional columns are left out, then columns continue in a further block.

No number is cut: a cell such as "0.53 [0.38, 0.68]" or "0.68 (<= 1.20)" breaks only before its bracket.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len

GAP = 2
"""Blanks between two columns."""
LEAST_TEXT = 26
"""Longer words of a text column may be folded."""
MOST_KEYS = 2
"""Leading text columns that are repeated in every block."""
_BRACKET = re.compile(r" (?=[\[(])")


@dataclass(frozen=True)
class Column:
    """A column's head, cells, letter (l or r; in upper case its cells never wrap) and final width."""

    head: str
    cells: Sequence[str]
    letter: str
    width: int = 0

    @property
    def is_text(self) -> bool:
        return self.letter in "lL"

    @property
    def cells_width(self) -> int:
        return max((cell_len(line) for cell in self.cells for line in cell.split("\n")), default=0)

    @property
    def full_width(self) -> int:
        return max(cell_len(self.head), self.cells_width)

    def least_width(self, room: int) -> int:
        """The width below which a number, or a word of usual length, would be cut.

        Args:
            room: columns of the terminal; a text column that needs more than half of them wraps in any case.
        """
        head = max((cell_len(word) for word in self.head.split()), default=0)
        if self.letter == "R" or (self.letter == "L" and self.cells_width <= room // 2):
            return max(head, self.cells_width)
        if self.letter == "r":
            return max(head, *(cell_len(part) for cell in self.cells for part in stacked_cell(cell).split("\n")), 0)
        words = [cell_len(word) for cell in self.cells for word in cell.split()]
        return max(head, min(max(words, default=0), LEAST_TEXT))

    def fitted_cells(self) -> list[str]:
        """The cells with line ends where numbers and their brackets do not fit on one line."""
        is_narrow = self.letter == "r" and self.cells_width > self.width
        return [stacked_cell(cell) if is_narrow else cell for cell in self.cells]


@dataclass(frozen=True)
class Layout:
    """The blocks of a table, each with all of its rows, and the heads of the columns that are left out."""

    blocks: list[list[Column]]
    hidden_heads: list[str]


def stacked_cell(cell: str) -> str:
    """A number and what is in brackets behind it, on two lines."""
    return _BRACKET.sub("\n", cell)


def fit(columns: Sequence[Column], optional_heads: Sequence[str], room: int) -> Layout:
    """Fit a table into `room` columns of a terminal. Columns without any value are not shown.

    Args:
        optional_heads: of the columns that may be left out, the first one first.
    """
    shown_columns = [column for place, column in enumerate(columns) if place == 0 or any(column.cells)]
    hidden_heads: list[str] = []
    for head in optional_heads:
        if _least_total(shown_columns, room) <= room:
            break
        if any(column.head == head for column in shown_columns):
            shown_columns = [column for column in shown_columns if column.head != head]
            hidden_heads.append(head)
    return Layout([_full_columns(block, room) for block in _blocks(shown_columns, room)], hidden_heads)


def _least_total(columns: Sequence[Column], room: int) -> int:
    return sum(column.least_width(room) for column in columns) + GAP * (len(columns) - 1)


def _blocks(columns: list[Column], room: int) -> list[list[Column]]:
    """The columns in blocks that fit; each begins with the leading text columns."""
    key_count = 1
    while (
        key_count < min(MOST_KEYS, len(columns))
        and columns[key_count].is_text
        and _least_total(columns[: key_count + 1], room) <= room // 2
    ):
        key_count += 1
    keys, blocks = columns[:key_count], list[list[Column]]()
    block = list(keys)
    for column in columns[key_count:]:
        if len(block) > key_count and _least_total([*block, column], room) > room:
            blocks.append(block)
            block = list(keys)
        block.append(column)
    return [*blocks, block]


def _full_columns(columns: Sequence[Column], room: int) -> list[Column]:
    """The columns with their widths: brackets stand beside their numbers if all have the room, then texts share the rest, then heads."""
    widths = [column.least_width(room) for column in columns]
    spare = room - sum(widths) - GAP * (len(columns) - 1)
    growths = {place: max(0, column.cells_width - widths[place]) for place, column in enumerate(columns) if not column.is_text}
    if sum(growths.values()) <= spare:
        for place, growth in growths.items():
            widths[place] += growth
            spare -= growth
    while spare > 0 and (places := [place for place, column in enumerate(columns) if column.is_text and widths[place] < column.full_width]):
        for place in places[:spare]:
            widths[place] += 1
        spare -= min(spare, len(places))
    for place, column in enumerate(columns):
        growth = column.full_width - widths[place]
        if 0 < growth <= spare and column.cells_width <= widths[place]:
            widths[place] += growth
            spare -= growth
    return [Column(column.head, column.cells, column.letter, width) for column, width in zip(columns, widths, strict=True)]
