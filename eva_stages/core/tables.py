"""Reading and writing the parquet files of artifacts, in batches and in a canonical form.

Equal rows give equal bytes: fixed row groups, fixed compression, rows in input order. That is what makes a resumed stage's digest
the unbroken one's. No function here but `read_table` holds more of an artifact than the columns asked for and a batch of rows; rows
that are wanted in another order than they lie in go through files in a scratch folder.
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
"""Of artifacts with texts: few, so that one row can be looked up without decoding many others' texts."""
NARROW_ROWS_PER_GROUP = 16_384
"""Of artifacts with nothing but ids and numbers, which are read whole."""
FILE = "rows.parquet"
BATCH = 2048
"""Rows that are read at a time."""
BUCKET = 8192
"""Rows that are brought into their order at a time, from a file of their own; more where that would be more than `FILES`."""
FILES = 256
PLACE = "_place"


def read_table(folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """An artifact's rows; `columns` that it does not have are left out."""
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
        for table in rechunked((batch.cast(schema) for batch in batches), size):
            writer.write_table(table, row_group_size=size)
            total += len(table)
    return total


def _rows_per_group(schema: pa.Schema) -> int:
    narrow = all(field.name.endswith("_id") or pa.types.is_floating(field.type) or pa.types.is_integer(field.type) for field in schema)
    return NARROW_ROWS_PER_GROUP if narrow else ROWS_PER_GROUP


def write_made(made: Generator[pa.Table, None, dict[str, int]], folder: Path) -> dict[str, int]:
    """Write what a generator yields, at least one table, with the first one's schema; returns what it returns."""
    first = next(made)
    counts: dict[str, int] = {}

    def tables() -> Iterator[pa.Table]:
        yield first
        counts.update((yield from made))

    write_rows(tables(), first.schema, folder)
    return counts


class Rows:
    """The rows of an artifact: a column at a time, or whole rows batch by batch.

    Args:
        folder: of the artifact.
        scratch: folder for what does not fit into memory.
        columns: those that count; ones that the artifact does not have are left out. None = all.
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
        """A whole column."""
        with parquet_errors(self._path):
            return pq.ParquetFile(self._path, metadata=self._metadata).read([name])[name].combine_chunks()

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """All rows in order, `BATCH` at a time; one empty table where there are none."""
        names = self.names if columns is None else list(columns)
        file = pq.ParquetFile(self._path, metadata=self._metadata)
        found = (pa.Table.from_batches([batch]).select(names) for batch in file.iter_batches(BATCH, columns=names))
        return rechunked(chain([file.schema_arrow.empty_table().select(names)], found), BATCH)

    def take(self, places: np.ndarray, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Rows by number, in the order of `places`."""
        return take([self], places, columns)


def take(sources: Sequence[Rows], places: np.ndarray, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Rows by number, in the order of `places`, from several artifacts that count as one after the other."""
    return picked(chain.from_iterable(source.batches(columns) for source in sources), places, sources[0].scratch)


def picked(tables: Iterable[pa.Table], places: np.ndarray, scratch: Path) -> Iterator[pa.Table]:
    """Rows by number from a stream of at least one table, which is gone through once; yields one empty table where none are wanted.

    Args:
        places: row numbers, shape (n,), in the order wanted; may repeat.
        scratch: folder for what is read before it is wanted.
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
            placed = table.append_column(PLACE, pa.array(positions))
            writers = writers or [pa.ipc.new_file(file, placed.schema) for file in files]
            buckets = positions // size
            for bucket in np.unique(buckets):
                writers[bucket].write_table(placed.filter(pa.array(buckets == bucket)))
        for writer in writers:
            writer.close()
        for file in files:
            with pa.OSFile(str(file)) as stream:
                yield pa.ipc.open_file(stream).read_all().sort_by(PLACE).drop_columns(PLACE)
            file.unlink()


def _ascending(tables: Iterable[pa.Table], places: np.ndarray) -> Iterator[pa.Table]:
    start = done = 0
    for table in tables:
        stop = start + len(table)
        until = int(np.searchsorted(places, stop))
        if until > done or not len(places):
            yield table.take(pa.array(places[done:until] - start))
        if until == len(places):
            return
        start, done = stop, until


def rechunked(tables: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """The rows of a stream of tables in tables of `size` rows, each in one chunk; the last may be smaller. No rows are one empty table."""
    waiting: list[pa.Table] = []
    some = False
    for table in tables:
        waiting.append(table)
        if sum(len(piece) for piece in waiting) < size:
            continue
        whole = pa.concat_tables(waiting).combine_chunks()
        full = len(whole) // size * size
        yield from (whole.slice(start, size) for start in range(0, full, size))
        waiting, some = [whole.slice(full)] if full < len(whole) else [], True
    if any(map(len, waiting)) or (waiting and not some):
        yield pa.concat_tables(waiting).combine_chunks()


def aligned(sources: Sequence[Rows], columns: Sequence[Sequence[str]]) -> Iterator[tuple[pa.Table, ...]]:
    """Batches of several artifacts with the same rows in the same order, side by side; `columns` of each."""
    return zip(*(source.batches(names) for source, names in zip(sources, columns, strict=True)), strict=True)


def check_same_order(sources: Sequence[Rows], names: str) -> None:
    """Raise a DataError unless artifacts hold the same prompts in the same order; `names` says what they are."""
    ids = sources[0]["prompt_id"]
    if not all(source["prompt_id"].equals(ids) for source in sources[1:]):
        raise DataError(f"{names} do not hold the same prompts in the same order")


def first_places(ids: pa.Array) -> np.ndarray:
    """Where each id stands for the first time, ascending."""
    numbered = pa.table({"id": ids, "place": np.arange(len(ids))})
    return np.sort(numbered.group_by("id").aggregate([("place", "min")])["place_min"].to_numpy())


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
    """Mean known reward of each prompt's answers, shape (prompts,); NaN where none is known."""
    return known_means(reward_matrix(table[column]))


@homogeneous(degree=1, rows=True)
def known_means(matrix: np.ndarray) -> np.ndarray:
    """Mean of the finite values of each row, shape (rows,); NaN where there is none."""
    known = np.isfinite(matrix)
    with np.errstate(invalid="ignore"):
        return np.where(known, matrix, 0).sum(axis=1) / known.sum(axis=1)


def mean_tokens(answers: Path) -> float | None:
    """Mean tokens of an artifact's answers; those that failed before there was a token do not count. None if there are no others."""
    table = read_table(answers, ["responses", "token_counts"])
    texts, counts = (table[name].combine_chunks().flatten() for name in ("responses", "token_counts"))
    mean = pc.mean(counts.filter(pc.or_(texts.is_valid(), pc.greater(counts, 0)))).as_py()
    return None if mean is None else float(mean)


def joined_batches(
    folders: Sequence[Path], prefixes: Sequence[str], skip: np.ndarray, size: int, scratch: Path
) -> Iterator[tuple[np.ndarray, list[dict[str, Any]]]]:
    """The rows of several artifacts joined on `prompt_id`, in the order of the first, `size` at a time.

    Args:
        folders: artifacts; each id of the first must be in all of them.
        prefixes: put before each artifact's column names; where names are the same, the first artifact's column counts.
        skip: row numbers (positions in the first artifact) to leave out.
        size: rows per batch; the last may be smaller.
        scratch: folder for rows of artifacts that are in another order than the first.

    Yields:
        Row numbers, shape (b,), and the b joined rows.
    """
    sources = [Rows(folder, scratch) for folder in folders]
    ids = sources[0]["prompt_id"]
    wanted = np.setdiff1d(np.arange(len(ids)), skip)
    if not len(wanted):
        return
    streams = [rechunked(source.take(_places(source, folder, ids)[wanted]), size) for source, folder in zip(sources, folders, strict=True)]
    for start, pieces in zip(range(0, len(wanted), size), zip(*streams, strict=True), strict=True):
        columns = [(prefix + name, piece[name]) for prefix, piece in zip(prefixes, pieces, strict=True) for name in piece.column_names]
        joined = dict(reversed(columns))
        yield wanted[start : start + size], pa.table(joined).to_pylist()


def _places(source: Rows, folder: Path, ids: pa.Array) -> np.ndarray:
    """The row numbers at which a source has `ids`."""
    own = source["prompt_id"]
    if own.equals(ids):
        return np.arange(len(ids))
    places = pc.index_in(ids, value_set=own)
    if places.null_count:
        missing = ids.filter(pc.is_null(places))[0].as_py()
        raise DataError(f"{folder} has no row for prompt {missing}, which {places.null_count} of the {len(ids)} rows need")
    return places.to_numpy()
