"""Reading files of prompts in blocks of rows: the unchanged values, with row numbers for messages.

An error in a file is a `ConfigError` with its place; `conversations` reports errors in values.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from eva_stages.core.errors import ConfigError
from eva_stages.core.json_lines import read_objects
from eva_stages.core.tables import BATCH

BLOCK = 1 << 20
"""Bytes of a text file that are read at a time."""
COLUMNS = ("prompt", "messages", "conversations", "instruction")
"""Where prompts stand, in this order, if a recipe names no column."""
TEXT_KINDS = (".jsonl", ".json", ".csv")
Row = tuple[int, dict[str, Any]]


class Block(NamedTuple):
    """A block of rows: values of the prompt column and of the reference column, and row numbers (line numbers in JSON lines)."""

    values: list[Any]
    references: list[Any]
    places: list[int]


def prompt_batches(path: Path, column: str | None, reference_column: str | None = None) -> Iterator[Block]:
    """The prompts of a file; `column` None takes the first of `COLUMNS` that it has.

    Raises:
        ConfigError: if the file is missing, empty, of an unknown kind, unreadable or has no such column or no value in it; errors in
            rows are raised when they are read.
    """
    if not path.is_file():
        raise ConfigError([f"prompts.path: there is no file {path}"])
    reader = READERS.get(path.suffix)
    if reader is None:
        raise ConfigError([f"prompts.path: {path} ends in {path.suffix or 'nothing'}; known: {', '.join(READERS)}"])
    try:
        if path.suffix in TEXT_KINDS:
            _check_text(path)
        columns = {*(COLUMNS if column is None else (column,)), *(() if reference_column is None else (reference_column,))}
        yield from column_blocks(reader(path, columns), str(path), column, reference_column)
    except (pa.ArrowException, OSError, ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError([f"prompts.path: {path} cannot be read as {path.suffix}: {' '.join(str(error).split())[:300]}"]) from error


def _check_text(path: Path) -> None:
    with path.open("rb") as stream:
        start = stream.read(4096)
    if not start.strip():
        raise ConfigError([f"prompts.path: {path} is empty"])
    if start[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in start:
        raise ConfigError([f"prompts.path: {path} is not UTF-8 text (UTF-16 or binary?); save it as UTF-8"])


def column_blocks(rows: Iterable[list[Row]], name: str, column: str | None, reference_column: str | None) -> Iterator[Block]:
    """Blocks of rows, the first of which may be an empty one whose columns are known.

    Raises:
        ConfigError: if a column is not there, or has no value.
    """
    column_names: dict[str, None] = {}
    chosen, values = column, 0
    for block in rows:
        column_names |= dict.fromkeys(key for _, row in block for key in row)
        if chosen is None and column_names:
            chosen = chosen_column(list(column_names), name)
        prompt_values = [row.get(chosen) if chosen is not None else None for _, row in block]
        values += sum(value is not None for value in prompt_values)
        references = [row.get(reference_column) if reference_column is not None else None for _, row in block]
        usable = [
            (value, reference, number) for value, reference, (number, _) in zip(prompt_values, references, block, strict=True) if number
        ]
        yield Block(*(list(part) for part in zip(*usable, strict=True))) if usable else Block([], [], [])
    for column_name, place in ((chosen, "column"), (reference_column, "reference_column")):
        if column_name is not None and column_name not in column_names:
            raise ConfigError([f"prompts.{place}: {name} has no column {column_name!r}; it has {', '.join(map(str, column_names))}"])
    if not values:
        raise ConfigError([f"prompts.path: {name} has no prompts in column {chosen!r}"])


def chosen_column(names: Sequence[str], place: str) -> str:
    """The column with the prompts, where a recipe names none.

    Raises:
        ConfigError: if there is none of `COLUMNS`, or the prompt may be in two of the columns.
    """
    chosen = next((column for column in COLUMNS if column in names), None)
    column_list = ", ".join(map(str, names[:40])) or "none"
    if chosen is None:
        raise ConfigError(
            [f"prompts.column: {place} has no column {' or '.join(map(repr, COLUMNS))}; it has {column_list}; name one of them"]
        )
    if chosen == "instruction" and "input" in names:
        raise ConfigError(
            [f"prompts.column: {place} has separate columns for instruction and input; join them, or name one of {column_list}"]
        )
    return chosen


def _json_rows(path: Path, columns: Set[str]) -> Iterator[list[Row]]:
    """By `json`: pyarrow's reader converts texts that look like dates."""
    entries = read_objects(path, unique_keys=True)
    while rows := [(entry.number, entry.value) for entry in islice(entries, BATCH)]:
        yield rows


def _csv_rows(path: Path, columns: Set[str]) -> Iterator[list[Row]]:
    lines = pyarrow.csv.ParseOptions(newlines_in_values=True)
    with pyarrow.csv.open_csv(path, parse_options=lines) as head:
        names = head.schema.names
    _check_names(names, path)
    # as text: the type that pyarrow infers from the first block may not fit the rest of a column
    present = [name for name in names if name in columns]
    texts = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(present, pa.string()), include_columns=present, null_values=[""], strings_can_be_null=True
    )
    yield [(0, dict.fromkeys(names))]
    if present:
        with pyarrow.csv.open_csv(path, pyarrow.csv.ReadOptions(block_size=BLOCK), lines, texts) as blocks:
            yield from numbered_rows(map(_table, blocks))


def _table(batch: pa.RecordBatch) -> pa.Table:
    return pa.Table.from_batches([batch])


def _parquet_rows(path: Path, columns: Set[str]) -> Iterator[list[Row]]:
    file = pq.ParquetFile(path)
    _check_names(file.schema_arrow.names, path)
    names = file.schema_arrow.names
    yield [(0, dict.fromkeys(names))]
    yield from numbered_rows(map(_table, file.iter_batches(BATCH, columns=[name for name in names if name in columns])))


def _check_names(names: Sequence[str], path: Path) -> None:
    if repeated_names := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError([f"prompts.path: {path} has the column {', '.join(map(repr, repeated_names))} more than once; keep one"])


def numbered_rows(tables: Iterable[pa.Table]) -> Iterator[list[Row]]:
    """The rows of tables, numbered from 1. Readers yield a row 0 of nulls first, which carries the column names."""
    number = 0
    for table in tables:
        rows = table.to_pylist()
        yield [(number + place, row) for place, row in enumerate(rows, 1)]
        number += len(rows)


READERS: dict[str, Callable[[Path, Set[str]], Iterator[list[Row]]]] = {
    ".jsonl": _json_rows,
    ".json": _json_rows,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
}
