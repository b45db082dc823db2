"""The journal of an interval of online training: what every step did, in Parquet files that are written at checkpoints.

A file has the rows since the checkpoint before: `uses-50.parquet` those up to step 50. A training that resumes from a checkpoint drops the
files after it and writes them again.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from eva_stages.core.durable import sync
from eva_stages.core.redaction import redact_rows
from eva_stages.core.rows import MESSAGES_OF_ERRORS, SCHEMAS

JOURNAL = "journal"
SCHEMA_OF = {"uses": "uses", "selections": "draws", "evolutions": "online_evolutions", "buffer": "buffer_entries"}
"""Tables of the journal, and the schemas of their rows; `buffer` is the buffer at the end of the interval."""
FATE_INSERTED, FATE_DUPLICATE, FATE_LATE = "inserted", "duplicate", "late"
"""Fates of evolutions, beside `failed`, a call that failed."""
FATE_REJECTED, FATE_GATE = "rejected:", "gate:"
"""Fates of evolutions, before the reason."""


class Journal:
    """The rows since the last checkpoint, in memory."""

    def __init__(self) -> None:
        self._rows: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)

    def add(self, table: str, *rows: dict[str, Any]) -> None:
        self._rows[table] += rows

    def write(self, step: int, folder: Path) -> None:
        """Write the rows up to a step, without secrets, and forget them."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in self._rows.items():
            schema = SCHEMAS[SCHEMA_OF[name]]
            table = pa.Table.from_pylist(
                [{column: row.get(column) for column in schema.names} for row in redact_rows(rows, MESSAGES_OF_ERRORS)], schema
            )
            path = folder / f"{name}-{step}.parquet"
            pq.write_table(table, path.with_suffix(".partial"), compression="zstd")
            sync(path.with_suffix(".partial"))
            path.with_suffix(".partial").replace(path)
        sync(folder)
        self._rows.clear()


def journal_files(folder: Path, table: str = "*") -> Iterator[tuple[int, Path]]:
    """The files of a journal, or of one of its tables, with their last steps, in the order of these."""
    steps = [(int(path.stem.rpartition("-")[2]), path) for path in folder.glob(f"{table}-*.parquet")]
    yield from sorted(steps)


def drop_after(folder: Path, step: int) -> None:
    """Delete the files with rows after a step, and those that are half written."""
    for last_step, path in journal_files(folder):
        if last_step > step:
            path.unlink()
    for path in folder.glob("*.partial"):
        path.unlink()
