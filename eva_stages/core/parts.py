"""Part files: the durable pieces that an unfinished row stage consists of.

Each batch is one parquet file under its first row's number, written whole or not at all, with the row numbers it holds, each row's
statistics (tokens, failures, money) and their sums inside. The file set is the whole state of a row stage.
"""

import json
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from eva_stages.core.redaction import redacted_rows
from eva_stages.core.rows import MESSAGES_OF_ERRORS
from eva_stages.core.store import sync, unwritable
from eva_stages.core.tables import picked, write_rows

ROW = "_row"
STATISTICS = "_statistics"
STATISTICS_KEY = b"eva.statistics"
ROWS_KEY = b"eva.rows"
FAILED = "failed"
"""The statistic that counts a row's failed calls (`core/failures.py`)."""
BEGUN = "begun"
"""A file beside the folder of part files, made when the steps are loaded and the first rows go out."""


def add_statistics(row: dict[str, Any], **numbers: float) -> None:
    """Add counts (tokens, failures, money) that belong to a row; the sink sums them up for the manifest."""
    row[STATISTICS] = dict(Counter(row.get(STATISTICS) or {}) + Counter(numbers))


def write_part(parts: Path, schema: pa.Schema, rows: list[dict[str, Any]]) -> None:
    """Write rows (with `_row` and perhaps `_statistics`), without secrets, as a part file that is there whole or not at all."""
    recorded = [{**row, STATISTICS: json.dumps(row.get(STATISTICS) or {})} for row in redacted_rows(rows, MESSAGES_OF_ERRORS)]
    fields = (pa.field(ROW, pa.int64()), pa.field(STATISTICS, pa.string()))
    table = pa.Table.from_pylist(recorded, schema=pa.schema([*schema, *fields]))
    first = min(row[ROW] for row in rows)
    names = (f"{first:09d}{f'-{number}' if number else ''}.parquet" for number in count())
    # a part that lost its failed rows keeps its name, which the batch of those rows may have as well
    _write(table, next(path for name in names if not (path := parts / name).exists()))


def _write(table: pa.Table, final: Path) -> None:
    """Write the table of a part file, with the sums of its statistics in the footer."""
    statistics: Counter[str] = Counter()
    for text in table[STATISTICS].to_pylist():
        statistics.update(json.loads(text))
    rows = len(pc.unique(table[ROW]))
    table = table.replace_schema_metadata({STATISTICS_KEY: json.dumps(statistics).encode(), ROWS_KEY: str(rows).encode()})
    partial, parts = final.with_suffix(".partial"), final.parent
    try:
        pq.write_table(table, partial, compression="zstd", write_page_checksum=True)
        sync(partial)
        partial.replace(final)
        sync(parts)
    except OSError as error:
        raise unwritable(error, parts) from error


def drop_damaged(parts: Path) -> None:
    """Delete what an earlier attempt left half written, and part files that no longer hold what was written: their rows run again."""
    for partial in parts.glob("*.partial"):
        partial.unlink()
    for path in parts.glob("*.parquet"):
        try:
            pq.read_table(path, page_checksum_verification=True)
        except (pa.ArrowException, OSError):
            path.unlink()


def drop_failed(parts: Path) -> int:
    """Delete the rows with a failed call, so that they run again, and keep all others; returns the number of input rows deleted."""
    dropped = 0
    for path in sorted(parts.glob("*.parquet")):
        _, statistics = part_facts(path)
        if not statistics.get(FAILED):
            continue
        table = pq.read_table(path)
        counts = [json.loads(text).get(FAILED, 0) for text in table[STATISTICS].to_pylist()]
        failed = pc.unique(table[ROW].filter(pa.array(np.array(counts) > 0)))
        kept = table.filter(pc.invert(pc.is_in(table[ROW], value_set=failed)))
        if len(kept):
            _write(kept, path)
        else:
            path.unlink()
        dropped += len(failed)
    return dropped


def read_parts(parts: Path) -> tuple[np.ndarray, Counter[str]]:
    """Row numbers that the part files hold, ascending, and the sums of their statistics."""
    numbers: list[np.ndarray] = [np.empty(0, dtype=np.int64)]
    statistics: Counter[str] = Counter()
    for path in sorted(parts.glob("*.parquet")):
        table = pq.read_table(path, columns=[ROW])
        numbers.append(table[ROW].to_numpy())
        statistics.update(json.loads(table.schema.metadata[STATISTICS_KEY]))
    return np.unique(np.concatenate(numbers)), statistics


def merge_parts(parts: Path, schema: pa.Schema, out: Path) -> int:
    """Write the rows of all part files, in input order, as an artifact; returns their number."""
    paths = sorted(parts.glob("*.parquet"))
    numbers = [np.empty(0, dtype=np.int64), *(pq.read_table(path, columns=[ROW])[ROW].to_numpy() for path in paths)]
    order = np.argsort(np.concatenate(numbers), kind="stable")
    return write_rows(picked((pq.read_table(path, columns=schema.names) for path in paths), order, parts), schema, out)


def part_facts(path: Path) -> tuple[int, dict[str, float]]:
    """Input rows behind a part file and its statistics, from its footer alone."""
    metadata = pq.read_schema(path).metadata
    return int(metadata[ROWS_KEY]), json.loads(metadata[STATISTICS_KEY])
