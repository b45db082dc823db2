"""What a section of the report consists of."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from eva_stages.publishing.report.plots import Plot

Cell = str | int | float | None


@dataclass(frozen=True)
class Table:
    """A table; numbers are aligned right."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    is_folded: bool = False
    """Whether the reader must open it."""

    def numeric(self, column: int) -> bool:
        return any(isinstance(row[column], int | float) for row in self.rows)


@dataclass(frozen=True)
class Section:
    """A heading, sentences, plots and tables."""

    id: str
    title: str
    lead: Sequence[str] = ()
    plots: Sequence[Plot] = ()
    tables: Sequence[Table] = ()
    missing: Sequence[str] = ()
    """What is missing from the run, and how to get it."""
    chains: Sequence[Any] = field(default=())
    answers: Sequence[Any] = field(default=())
    texts: Sequence[tuple[str, str]] = ()
    """Foldable texts, such as the recipe: (title, text)."""
