"""Reading and writing the parquet files of artifacts, in batches and in a canonical form.

Equal rows give equal bytes: fixed row groups, fixed compression, rows in input order. That is what makes a resumed stage's digest
the unbroken one's.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from eva_stages.core.errors import DataError

ROWS_PER_GROUP = 512
"""Few, so that one row can be looked up without decoding many others' texts."""
FILE = "rows.parquet"


def read_table(folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """An artifact's rows; `columns` that it does not have are left out."""
    path = folder / FILE
    present = pq.read_schema(path).names
    return pq.read_table(path, columns=None if columns is None else [name for name in columns if name in present], memory_map=True)


def count_rows(folder: Path) -> int:
    return int(pq.read_metadata(folder / FILE).num_rows)


def write_rows(batches: Iterable[pa.Table], schema: pa.Schema, folder: Path) -> int:
    """Write tables to `folder` as one canonical parquet file; returns the number of rows."""
    folder.mkdir(parents=True, exist_ok=True)
    total = 0
    with pq.ParquetWriter(folder / FILE, schema, compression="zstd") as writer:
        waiting: list[pa.Table] = []
        for table in batches:
            waiting.append(table.cast(schema))
            if sum(len(piece) for piece in waiting) < ROWS_PER_GROUP:
                continue
            whole = pa.concat_tables(waiting).combine_chunks()
            full = len(whole) // ROWS_PER_GROUP * ROWS_PER_GROUP
            writer.write_table(whole.slice(0, full), row_group_size=ROWS_PER_GROUP)
            total += full
            waiting = [whole.slice(full)] if full < len(whole) else []
        if waiting:
            rest = pa.concat_tables(waiting).combine_chunks()
            writer.write_table(rest, row_group_size=ROWS_PER_GROUP)
            total += len(rest)
    return total


def reward_matrix(column: pa.ChunkedArray) -> np.ndarray:
    """A list column of rewards as float64 of shape (prompts, n), null as NaN.

    Raises:
        ValueError: if prompts have different numbers of responses.
    """
    array = column.combine_chunks()
    lengths = np.unique(array.value_lengths().to_numpy(zero_copy_only=False))
    if len(lengths) > 1:
        raise ValueError(f"prompts have different numbers of responses: {lengths.tolist()}")
    flat = array.flatten().cast(pa.float64()).to_numpy(zero_copy_only=False)
    return flat.reshape(len(array), -1)


def per_prompt_mean(table: pa.Table, column: str) -> np.ndarray:
    """Mean known reward of each prompt's answers, shape (prompts,); NaN where none is known."""
    matrix = reward_matrix(table[column])
    known = np.isfinite(matrix)
    with np.errstate(invalid="ignore"):
        return np.where(known, matrix, 0).sum(axis=1) / known.sum(axis=1)


def joined_batches(
    folders: Sequence[Path], prefixes: Sequence[str], skip: np.ndarray, size: int
) -> Iterator[tuple[np.ndarray, list[dict[str, Any]]]]:
    """The rows of several artifacts joined on `prompt_id`, in the order of the first, `size` at a time.

    Args:
        folders: artifacts; each id of the first must be in all of them.
        prefixes: put before each artifact's column names; where names are the same, the first artifact's column counts.
        skip: row numbers (positions in the first artifact) to leave out.
        size: rows per batch; the last may be smaller.

    Yields:
        Row numbers, shape (b,), and the b joined rows.
    """
    ids = read_table(folders[0], ["prompt_id"])["prompt_id"].combine_chunks()
    wanted = np.setdiff1d(np.arange(len(ids)), skip)
    readers = [_reader(folder, ids, size) for folder in folders]
    for start in range(0, len(wanted), size):
        rows = wanted[start : start + size]
        pieces = [reader(rows) for reader in readers]
        columns = [(prefix + name, piece[name]) for prefix, piece in zip(prefixes, pieces, strict=True) for name in piece.column_names]
        joined = dict(reversed(columns))
        yield rows, pa.table(joined).to_pylist()


def _reader(folder: Path, ids: pa.Array, size: int) -> Callable[[np.ndarray], pa.Table]:
    """A function from row numbers of `ids` to a table with those rows of the artifact in `folder`."""
    own = read_table(folder, ["prompt_id"])["prompt_id"].combine_chunks()
    if own.equals(ids):
        return _Forward(folder, size).take
    places = pc.index_in(ids, own)
    if places.null_count:
        missing = ids.filter(pc.is_null(places))[0].as_py()
        raise DataError(f"{folder} has no row for prompt {missing}, which {places.null_count} of the {len(ids)} rows need")
    table = read_table(folder)
    return lambda rows: table.take(places.take(pa.array(rows)))


class _Forward:
    """Reads ascending row numbers from a parquet file, one pass, holding a batch at a time."""

    def __init__(self, folder: Path, size: int) -> None:
        self._batches = pq.ParquetFile(folder / FILE, memory_map=True).iter_batches(batch_size=max(size, 1024))
        self._held = pa.table({})
        self._start = 0

    def take(self, rows: np.ndarray) -> pa.Table:
        pieces = []
        while len(rows):
            local = rows[rows < self._start + self._held.num_rows]
            if len(local):
                pieces.append(self._held.take(pa.array(local - self._start)))
                rows = rows[len(local) :]
            if len(rows):
                self._start += self._held.num_rows
                self._held = pa.Table.from_batches([next(self._batches)])
        return pa.concat_tables(pieces)
