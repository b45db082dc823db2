"""Find rows of an artifact by value, without reading the texts of all other rows.

Ids are hashes, so the statistics of a file do not locate them: the complete id column is read, which takes milliseconds for 100,000 rows,
and then only the row groups with a match, up to the match.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from eva_stages.core.ourfiles import parquet_errors

Row = dict[str, Any]
ROWS_AT_A_TIME = 256
MOST_CHARACTERS = 64
"""Characters of an unknown id that are compared."""


class Rows:
    """Finds rows of an artifact by value and reads only those."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with parquet_errors(path):
            self._file = pq.ParquetFile(path, memory_map=True)
        self._columns: dict[str, pa.ChunkedArray] = {}
        self.names = set(self._file.schema_arrow.names)
        sizes = [self._file.metadata.row_group(index).num_rows for index in range(self._file.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])

    def column(self, name: str) -> pa.ChunkedArray:
        if name not in self._columns:
            with parquet_errors(self._path):
                self._columns[name] = self._file.read(columns=[name])[name]
        return self._columns[name]

    def where(self, name: str, value: str) -> np.ndarray:
        """Row numbers at which a column has the value, ascending."""
        return np.flatnonzero(pc.fill_null(pc.equal(self.column(name), value), False).to_numpy())

    def take(self, numbers: np.ndarray, columns: list[str] | None = None) -> list[Row]:
        """The rows with these ascending numbers; columns that are not there are left out."""
        wanted_columns = None if columns is None else [name for name in columns if name in self.names]
        rows: list[Row] = []
        groups = np.searchsorted(self._starts, numbers, side="right") - 1
        for group in np.unique(groups):
            with parquet_errors(self._path):
                rows += self._from_group(int(group), numbers[groups == group] - self._starts[group], wanted_columns)
        return rows

    def _from_group(self, group: int, local: np.ndarray, columns: list[str] | None) -> list[Row]:
        """Decode a row group up to the last requested row."""
        rows: list[Row] = []
        start = 0
        for batch in self._file.iter_batches(ROWS_AT_A_TIME, row_groups=[group], columns=columns, use_threads=False):
            places = local[(local >= start) & (local < start + len(batch))] - start
            rows += batch.take(pa.array(places)).to_pylist() if len(places) else []
            start += len(batch)
            if len(rows) == len(local):
                break
        return rows

    def of(self, prompt_id: str, columns: list[str] | None = None) -> Row | None:
        """The first row of a prompt."""
        numbers = self.where("prompt_id", prompt_id)
        return self.take(numbers[:1], columns)[0] if len(numbers) else None


def similar_ids(unknown_id: str, columns: Iterable[pa.ChunkedArray], count: int = 3) -> list[str]:
    """At most `count` of the ids in some columns: those that share the longest beginning with an unknown id."""
    ids = pc.unique(pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string()))
    start = unknown_id.strip().lower()[:MOST_CHARACTERS]
    while start and not pc.any(pc.starts_with(ids, start)).as_py():
        start = start[:-1]
    return ids.filter(pc.starts_with(ids, start))[:count].to_pylist()
