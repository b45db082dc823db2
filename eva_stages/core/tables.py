"""Reading and writing the parquet files of artifacts, in batches and in a canonical form.

Equal rows give equal bytes: fixed row groups, fixed compression, rows in input order. So a resumed stage has the digest of an
uninterrupted one. Except `read_table`, no function holds more of an artifact in memory than the requested columns and a batch of rows;
rows in another order than in the file go through files in a scratch folder.
"""

import tempfile
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from eva_stages.core.errors import DataError
from eva_stages.core.numeric import homogeneous
from eva_stages.core.ourfiles import parquet_errors

ROWS_PER_GROUP = 512
"""Of artifacts with texts: few rows, so that reading one row does not decode the texts of many others."""
NARROW_ROWS_PER_GROUP = 16_384
"""Of artifacts with ids and numbers only, which are read completely."""
FILE = "rows.parquet"
BATCH = 2048
"""Rows read at a time."""
BUCKET = 8192
"""Rows sorted at a time, from a scratch file each; more if there would be more than `FILES` files."""
FILES = 256
PLACE = "_place"


def read_table(folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """An artifact's rows; missing `columns` are left out."""
    path = folder / FILE
    with parquet_errors(path):
        present = pq.read_schema(path).names
        return pq.read_table(path, columns=None if columns is None else [name for name in columns if name in present], memory_map=True)


def count_rows(folder: Path) -> int:
    with parquet_errors(folder / FILE):
        return int(pq.read_metadata(folder / FILE).num_rows)


def write_rows(batches: Iterable[pa.Table], schema: pa.Schema, folder: Path) -> int:
    """Write tables to `folder` as one canonical parquet file; returns the number of rows."""
    folder.mkdir(parents=True, exist_ok=True)
    total, size = 0, _rows_per_group(schema)
    with pq.ParquetWriter(folder / FILE, schema, compression="zstd") as writer:
        for table in rechunk((batch.cast(schema) for batch in batches), size):
            writer.write_table(table, row_group_size=size)
            total += len(table)
    return total


def _rows_per_group(schema: pa.Schema) -> int:
    narrow = all(field.name.endswith("_id") or pa.types.is_floating(field.type) or pa.types.is_integer(field.type) for field in schema)
    return NARROW_ROWS_PER_GROUP if narrow else ROWS_PER_GROUP


def write_made(batches: Generator[pa.Table, None, dict[str, int]], folder: Path) -> dict[str, int]:
    """Write the tables that a generator yields (at least one), with the first one's schema; returns the generator's return value."""
    first = next(batches)
    counts: dict[str, int] = {}

    def tables() -> Iterator[pa.Table]:
        yield first
        counts.update((yield from batches))

    write_rows(tables(), first.schema, folder)
    return counts


class Rows:
    """The rows of an artifact: a column at a time, or complete rows batch by batch.

    Args:
        folder: of the artifact.
        scratch: folder for data that does not fit into memory.
        columns: columns to read; missing ones are left out. None = all.
    """

    def __init__(self, folder: Path, scratch: Path, columns: Sequence[str] | None = None) -> None:
        self._path, self.scratch = folder / FILE, scratch
        with parquet_errors(self._path):
            self._metadata = pq.read_metadata(self._path)
        present = self._metadata.schema.to_arrow_schema().names
        self.names = present if columns is None else [name for name in columns if name in present]

    def __len__(self) -> int:
        return int(self._metadata.num_rows)

    def __getitem__(self, name: str) -> pa.Array:
        """A complete column."""
        with parquet_errors(self._path):
            return pq.ParquetFile(self._path, metadata=self._metadata).read([name])[name].combine_chunks()

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """All rows in order, `BATCH` at a time; one empty table if there are none."""
        names = self.names if columns is None else list(columns)
        file = pq.ParquetFile(self._path, metadata=self._metadata)
        tables = (pa.Table.from_batches([batch]).select(names) for batch in file.iter_batches(BATCH, columns=names))
        return rechunk(chain([file.schema_arrow.empty_table().select(names)], tables), BATCH)

    def take(self, places: np.ndarray, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Rows by number, in the order of `places`."""
        return take([self], places, columns)


def take(sources: Sequence[Rows], places: np.ndarray, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Rows by number, in the order of `places`, from several artifacts numbered one after the other."""
    return pick_rows(chain.from_iterable(source.batches(columns) for source in sources), places, sources[0].scratch)


def pick_rows(tables: Iterable[pa.Table], places: np.ndarray, scratch: Path) -> Iterator[pa.Table]:
    """Rows by number from a stream of at least one table, read once; one empty table if `places` is empty.

    Args:
        places: row numbers in output order, shape (n,); may repeat.
        scratch: folder for rows that are read before their turn.
    """
    if np.all(places[1:] >= places[:-1]):
        yield from _ascending(tables, places)
        return
    order = np.argsort(places, kind="stable")
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        size = max(BUCKET, -(-len(order) // FILES))
        files = [Path(name) / f"{bucket}.arrow" for bucket in range(-(-len(order) // size))]
        writers: list[pa.RecordBatchFileWriter] = []
        start = 0
        for table in _ascending(tables, places[order]):
            positions = order[start : start + len(table)]
            start += len(table)
            placed_rows = table.append_column(PLACE, pa.array(positions))
            writers = writers or [pa.ipc.new_file(file, placed_rows.schema) for file in files]
            buckets = positions // size
            for bucket in np.unique(buckets):
                writers[bucket].write_table(placed_rows.filter(pa.array(buckets == bucket)))
        for writer in writers:
            writer.close()
        for file in files:
            with pa.OSFile(str(file)) as stream:
                yield pa.ipc.open_file(stream).read_all().sort_by(PLACE).drop_columns(PLACE)
            file.unlink()


def _ascending(tables: Iterable[pa.Table], places: np.ndarray) -> Iterator[pa.Table]:
    start = first_place = 0
    for table in tables:
        stop = start + len(table)
        next_place = int(np.searchsorted(places, stop))
        if next_place > first_place or not len(places):
            yield table.take(pa.array(places[first_place:next_place] - start))
        if next_place == len(places):
            return
        start, first_place = stop, next_place


def rechunk(tables: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """The rows of a stream in tables of `size` rows, one chunk each; the last may be smaller. Without rows, one empty table."""
    waiting: list[pa.Table] = []
    some = False
    for table in tables:
        waiting.append(table)
        if sum(len(piece) for piece in waiting) < size:
            continue
        table_of_rows = pa.concat_tables(waiting).combine_chunks()
        full = len(table_of_rows) // size * size
        yield from (table_of_rows.slice(start, size) for start in range(0, full, size))
        waiting, some = [table_of_rows.slice(full)] if full < len(table_of_rows) else [], True
    if any(map(len, waiting)) or (waiting and not some):
        yield pa.concat_tables(waiting).combine_chunks()


def aligned_batches(sources: Sequence[Rows], columns: Sequence[Sequence[str]]) -> Iterator[tuple[pa.Table, ...]]:
    """Batches of several artifacts with the same rows in the same order, side by side; `columns` of each."""
    return zip(*(source.batches(names) for source, names in zip(sources, columns, strict=True)), strict=True)


def check_same_order(sources: Sequence[Rows], names: str) -> None:
    """Raise a DataError unless the artifacts (`names` in the message) have the same prompts in the same order."""
    ids = sources[0]["prompt_id"]
    if not all(source["prompt_id"].equals(ids) for source in sources[1:]):
        raise DataError(f"{names} do not have the same prompts in the same order")


def first_places(ids: pa.Array) -> np.ndarray:
    """Row numbers of the first occurrence of each id, ascending."""
    numbered_ids = pa.table({"id": ids, "place": np.arange(len(ids))})
    return np.sort(numbered_ids.group_by("id").aggregate([("place", "min")])["place_min"].to_numpy())


def reward_matrix(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """A list column of rewards as float64 of shape (prompts, n), null as NaN.

    Raises:
        ValueError: if prompts have different numbers of responses.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    lengths = np.unique(array.value_lengths().to_numpy(zero_copy_only=False))
    if len(lengths) > 1:
        raise ValueError(f"prompts have different numbers of responses: {lengths.tolist()}")
    flat = array.flatten().cast(pa.float64()).to_numpy(zero_copy_only=False)
    return flat.reshape(len(array), max(lengths, default=0))


def per_prompt_mean(table: pa.Table, column: str) -> np.ndarray:
    """Mean reward of each prompt's responses without null, shape (prompts,); NaN if all are null."""
    return known_means(reward_matrix(table[column]))


@homogeneous(degree=1, rows=True)
def known_means(matrix: np.ndarray) -> np.ndarray:
    """Mean of the finite values of each row, shape (rows,); NaN if there are none."""
    is_finite = np.isfinite(matrix)
    with np.errstate(invalid="ignore"):
        return np.where(is_finite, matrix, 0).sum(axis=1) / is_finite.sum(axis=1)


def mean_tokens(answers: Path) -> float | None:
    """Mean tokens of an artifact's responses, without those that failed before the first token; None if there are no others."""
    table = read_table(answers, ["responses", "token_counts"])
    texts, counts = (table[name].combine_chunks().flatten() for name in ("responses", "token_counts"))
    mean = pc.mean(counts.filter(pc.or_(texts.is_valid(), pc.greater(counts, 0)))).as_py()
    return None if mean is None else float(mean)


def joined_batches(
    folders: Sequence[Path], prefixes: Sequence[str], skip: np.ndarray, size: int, scratch: Path
) -> Iterator[tuple[np.ndarray, list[dict[str, Any]]]]:
    """The rows of several artifacts joined on `prompt_id`, in the order of the first, `size` at a time.

    Args:
        folders: artifacts; each id of the first must be in all.
        prefixes: of each artifact's column names; among equal names the first artifact's column wins.
        skip: row numbers of the first artifact to leave out.
        size: rows per batch; the last may be smaller.
        scratch: folder for rows of artifacts in another order than the first.

    Yields:
        Row numbers, shape (b,), and the b joined rows.
    """
    sources = [Rows(folder, scratch) for folder in folders]
    ids = sources[0]["prompt_id"]
    rows = np.setdiff1d(np.arange(len(ids)), skip)
    if not len(rows):
        return
    streams = [rechunk(source.take(_places(source, folder, ids)[rows]), size) for source, folder in zip(sources, folders, strict=True)]
    for start, pieces in zip(range(0, len(rows), size), zip(*streams, strict=True), strict=True):
        columns = [(prefix + name, piece[name]) for prefix, piece in zip(prefixes, pieces, strict=True) for name in piece.column_names]
        joined_columns = dict(reversed(columns))
        yield rows[start : start + size], pa.table(joined_columns).to_pylist()


def _places(source: Rows, folder: Path, ids: pa.Array) -> np.ndarray:
    """The row numbers at which a source has `ids`."""
    source_ids = source["prompt_id"]
    if source_ids.equals(ids):
        return np.arange(len(ids))
    places = pc.index_in(ids, value_set=source_ids)
    if places.null_count:
        missing = ids.filter(pc.is_null(places))[0].as_py()
        raise DataError(f"{folder} has no row for prompt {missing}, which {places.null_count} of the {len(ids)} rows need")
    return places.to_numpy()
