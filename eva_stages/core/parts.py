"""Part files: the durable pieces that an unfinished row stage consists of.

Each batch is one parquet file under its first row's number, written whole or not at all, with the row numbers it holds and the sums
of its rows' statistics (tokens, failures, money) inside. The file set is the whole state of a row stage.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from eva_stages.core.redaction import redacted_rows
from eva_stages.core.rows import MESSAGES_OF_ERRORS
from eva_stages.core.store import sync, unwritable
from eva_stages.core.tables import picked, write_rows

ROW = "_row"
STATISTICS = "_statistics"
STATISTICS_KEY = b"eva.statistics"
ROWS_KEY = b"eva.rows"
BEGUN = "begun"
"""A file beside the folder of part files, made when the steps are loaded and the first rows go out."""


def add_statistics(row: dict[str, Any], **numbers: float) -> None:
    """Add counts (tokens, failures, money) that belong to a row; the sink sums them up for the manifest."""
    row[STATISTICS] = dict(Counter(row.get(STATISTICS) or {}) + Counter(numbers))


def write_part(parts: Path, schema: pa.Schema, rows: list[dict[str, Any]]) -> None:
    """Write rows (with `_row` and perhaps `_statistics`), without secrets, as a part file that is there whole or not at all."""
    rows = redacted_rows(rows, MESSAGES_OF_ERRORS)
    statistics: Counter[str] = Counter()
    for row in rows:
        statistics.update(row.get(STATISTICS) or {})
    table = pa.Table.from_pylist(rows, schema=schema.append(pa.field(ROW, pa.int64())))
    numbers = {row[ROW] for row in rows}
    table = table.replace_schema_metadata({STATISTICS_KEY: json.dumps(statistics).encode(), ROWS_KEY: str(len(numbers)).encode()})
    first = min(numbers)
    partial, final = parts / f"{first:09d}.partial", parts / f"{first:09d}.parquet"
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
    return write_rows(picked((pq.read_table(path).drop_columns(ROW) for path in paths), order, parts), schema, out)


def part_facts(path: Path) -> tuple[int, dict[str, float]]:
    """Input rows behind a part file and its statistics, from its footer alone."""
    metadata = pq.read_schema(path).metadata
    return int(metadata[ROWS_KEY]), json.loads(metadata[STATISTICS_KEY])
