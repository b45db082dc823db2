"""Part files: the durable pieces that an unfinished row stage consists of.

Each batch is one parquet file, named by its first row's number and written atomically. It contains row numbers, the name of its stage, each
row's statistics (tokens, failures, money) and their sums. The files are the complete state of a row stage, so other files among them
(copies, files of a sync tool) are reported and ignored, and no row may be in two files.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from eva_stages.core.decoding import decode_json
from eva_stages.core.durable import sync, unwritable
from eva_stages.core.errors import DamagedError, StageError
from eva_stages.core.ourfiles import parquet_errors
from eva_stages.core.redaction import redact_rows
from eva_stages.core.rows import MESSAGES_OF_ERRORS
from eva_stages.core.tables import pick_rows, write_rows

ROW = "_row"
STATISTICS = "_statistics"
STATISTICS_KEY = b"eva.statistics"
ROWS_KEY = b"eva.rows"
FAILED_CALLS = "failed"
"""The statistic that counts a row's failed calls (`core/failures.py`)."""
STAGE_KEY = b"eva.stage"
"""The attempt's folder, which is named after the stage and its fingerprint; files of old versions have no such key."""
BEGIN_MARK = "begun"
"""A file beside the folder of part files, created when the steps are loaded and the first rows are sent."""
NAME, HALF_WRITTEN = re.compile(r"\d{9,}(-\d+)?\.parquet"), re.compile(r"\d{9,}(-\d+)?\.partial")


class Finding(NamedTuple):
    """A problem with the files of an earlier attempt, for the user."""

    event: str
    """deleted-part, foreign-file, double-part or contradicting-part."""
    file: str
    cause: str


def add_statistics(row: dict[str, Any], **numbers: float) -> None:
    """Add counts (tokens, failures, money) that belong to a row; the sink sums them up for the manifest."""
    row[STATISTICS] = dict(Counter(row.get(STATISTICS) or {}) + Counter(numbers))


def write_part(parts: Path, schema: pa.Schema, rows: list[dict[str, Any]]) -> None:
    """Write rows (with `_row`, optionally `_statistics`), without secrets, as a part file, atomically."""
    recorded_rows = [{**row, STATISTICS: json.dumps(row.get(STATISTICS) or {})} for row in redact_rows(rows, MESSAGES_OF_ERRORS)]
    fields = (pa.field(ROW, pa.int64()), pa.field(STATISTICS, pa.string()))
    table = pa.Table.from_pylist(recorded_rows, schema=pa.schema([*schema, *fields]))
    first = min(row[ROW] for row in rows)
    names = (f"{first:09d}{f'-{number}' if number else ''}.parquet" for number in count())
    # the batch of a part's failed rows may get the name of that part
    _write(table, next(path for name in names if not (path := parts / name).exists()))


def _write(table: pa.Table, final: Path) -> None:
    """Write the table of a part file, with the sums of its statistics in the footer."""
    statistics: Counter[str] = Counter()
    for text in table[STATISTICS].to_pylist():
        statistics.update(json.loads(text))
    partial, parts = final.with_suffix(".partial"), final.parent
    facts = {STATISTICS_KEY: json.dumps(statistics), ROWS_KEY: str(len(pc.unique(table[ROW]))), STAGE_KEY: parts.parent.name}
    table = table.replace_schema_metadata({key: value.encode() for key, value in facts.items()})
    try:
        pq.write_table(table, partial, compression="zstd", write_page_checksum=True)
        sync(partial)
        partial.replace(final)
        sync(parts)
    except OSError as error:
        raise unwritable(error, parts) from error


def part_files(parts: Path) -> list[Path]:
    """The part files in a folder, in the order of their rows."""
    return sorted(path for path in parts.iterdir() if NAME.fullmatch(path.name) and path.is_file()) if parts.is_dir() else []


def settle_parts(parts: Path) -> list[Finding]:
    """Keep part files of this stage only, each row in one of them; returns the problems.

    Half-written files, and those of a wrong format or checksum, are deleted, and their rows run again. No other file is deleted: a file
    with a foreign name is ignored; a file of another stage and a duplicate are renamed, and so are two files that contradict each other,
    whose rows run again.

    Raises:
        UnreadableError: if the system does not let us read a file, which may be intact.
    """
    findings = []
    for path in sorted(parts.iterdir()):
        if HALF_WRITTEN.fullmatch(path.name):
            path.unlink()
        elif not NAME.fullmatch(path.name) or not path.is_file():
            findings.append(Finding("foreign-file", path.name, "is no part file; it is ignored"))
    owners: dict[int, Path] = {}
    for path in part_files(parts):
        try:
            numbers = np.unique(_whole(path)[ROW].to_numpy())
            stage = pq.read_schema(path).metadata.get(STAGE_KEY, b"").decode()
        except DamagedError as error:
            path.unlink()
            findings.append(Finding("deleted-part", path.name, f"{error}; it is deleted and its rows run again"))
            continue
        if stage and stage != parts.parent.name:
            findings.append(_put_aside(path, "foreign", f"belongs to {stage}; it is ignored"))
            continue
        findings += _without_doubles(path, numbers, owners)
    return findings


def _whole(path: Path) -> pa.Table:
    """A part file, its checksums verified.

    Raises:
        DamagedError: if a checksum does not match.
        UnreadableError: if the system does not let us read it.
    """
    with parquet_errors(path):
        table = pq.read_table(path, page_checksum_verification=True)
    part_facts(path)
    if ROW not in table.column_names or table[ROW].null_count or not pa.types.is_integer(table.schema.field(ROW).type):
        raise DamagedError(f"{path} has no row numbers")
    return table


def _without_doubles(path: Path, numbers: np.ndarray, owners: dict[int, Path]) -> Iterator[Finding]:
    """Record the owner of a part file's rows; the file, and the files that share rows with it, are renamed."""
    other_files = sorted({owners[number] for number in numbers.tolist() if number in owners})
    if not other_files:
        owners.update(dict.fromkeys(numbers.tolist(), path))
        return
    if all(number in owners for number in numbers.tolist()) and all(_same_rows(path, file, numbers) for file in other_files):
        yield _put_aside(path, "double", f"has the rows of {', '.join(file.name for file in other_files)} again; it is ignored")
        return
    cause = "has rows of another part file with different content; both are ignored and their rows run again"
    for file in (path, *other_files):
        yield _put_aside(file, "contradicting", cause)
    for number in [number for number, owner in owners.items() if owner in other_files]:
        del owners[number]


def _same_rows(path: Path, other_path: Path, numbers: np.ndarray) -> bool:
    """Whether two part files agree on the rows among `numbers` that the second one has."""
    first, second = pq.read_table(path), pq.read_table(other_path)
    shared_numbers = np.intersect1d(np.intersect1d(numbers, first[ROW].to_numpy()), second[ROW].to_numpy())
    first, second = (table.filter(pa.array(np.isin(table[ROW].to_numpy(), shared_numbers))) for table in (first, second))
    return bool(first.equals(second))


def _put_aside(path: Path, kind: str, cause: str) -> Finding:
    place = path.with_name(f"{path.name}.{kind}")
    path.replace(place)
    event = "foreign-file" if kind == "foreign" else f"{kind}-part"
    return Finding(event, path.name, f"{cause}; it was renamed to {place.name}")


def drop_failed(parts: Path) -> int:
    """Delete the rows with a failed call, so that they run again; returns the number of deleted input rows."""
    dropped_count = 0
    for path in part_files(parts):
        _, statistics = part_facts(path)
        if not statistics.get(FAILED_CALLS):
            continue
        table = pq.read_table(path)
        counts = [json.loads(text).get(FAILED_CALLS, 0) for text in table[STATISTICS].to_pylist()]
        failed_rows = pc.unique(table[ROW].filter(pa.array(np.array(counts) > 0)))
        kept_rows = table.filter(pc.invert(pc.is_in(table[ROW], value_set=failed_rows)))
        if len(kept_rows):
            _write(kept_rows, path)
        else:
            path.unlink()
        dropped_count += len(failed_rows)
    return dropped_count


def read_parts(parts: Path) -> tuple[np.ndarray, Counter[str]]:
    """Row numbers that the part files hold, ascending, and the sums of their statistics."""
    numbers: list[np.ndarray] = [np.empty(0, dtype=np.int64)]
    statistics: Counter[str] = Counter()
    for path in part_files(parts):
        table = pq.read_table(path, columns=[ROW])
        numbers.append(table[ROW].to_numpy())
        statistics.update(json.loads(table.schema.metadata[STATISTICS_KEY]))
    return np.unique(np.concatenate(numbers)), statistics


def merge_parts(parts: Path, schema: pa.Schema, target: Path, total: int | None = None) -> int:
    """Write the rows of all part files, in input order, as an artifact; returns their number.

    Args:
        total: number of input rows; None = as many as the part files have.

    Raises:
        StageError: unless every input row is in exactly one part file, and no other row in any.
    """
    paths = part_files(parts)
    numbers = [np.empty(0, dtype=np.int64), *(pq.read_table(path, columns=[ROW])[ROW].to_numpy() for path in paths)]
    rows = np.concatenate([np.unique(part_numbers) for part_numbers in numbers])
    unique_rows = np.unique(rows)
    total = len(unique_rows) if total is None else total
    if len(unique_rows) < len(rows) or not np.array_equal(unique_rows, np.arange(total)):
        raise StageError(
            f"the part files in {parts} have {len(rows):,} rows, {len(unique_rows):,} of them distinct, for {total:,} input rows; another "
            "program writes there. Stop it and rerun"
        )
    order = np.argsort(np.concatenate(numbers), kind="stable")
    return write_rows(pick_rows((pq.read_table(path, columns=schema.names) for path in paths), order, parts), schema, target)


def part_facts(path: Path) -> tuple[int, dict[str, float]]:
    """Input rows behind a part file and its statistics, from its footer alone.

    Raises:
        DamagedError, UnreadableError: if it is no part file, or cannot be read.
    """
    with parquet_errors(path):
        metadata = pq.read_schema(path).metadata or {}
    try:
        return int(metadata[ROWS_KEY]), dict(decode_json(metadata[STATISTICS_KEY]))
    except (KeyError, ValueError, TypeError) as error:
        raise DamagedError(f"{path} is not a part file: its footer has no statistics") from error
