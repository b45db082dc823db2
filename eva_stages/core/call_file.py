"""The SQLite file of a journal of paid calls: its table, fixes for its errors, and the spending of a stage."""

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil

from eva_stages.core.errors import StageError

CALLS = "calls.sqlite"
SENT_PREFIX = "sent-"
"""Prefix of the keys of calls without a usable response."""
BUSY_SECONDS = 60
UNANSWERED_CALL = json.dumps({"failure": "sent, but no response was received"})
TABLE = "CREATE TABLE IF NOT EXISTS calls (key TEXT PRIMARY KEY, answer TEXT NOT NULL, usd REAL NOT NULL)"
OWN_COLUMNS = {"stage": "TEXT", "estimated": "INTEGER NOT NULL DEFAULT 0", "owner": "TEXT"}
"""Columns that only a run's journal has: the paying stage, whether `usd` is an estimate, and the process that waits for the response."""
FIXES = {
    "SQLITE_FULL": "free some space on its disk",
    "SQLITE_BUSY": "another process has locked it; end that process or wait for it",
    "SQLITE_LOCKED": "another process has locked it; end that process or wait for it",
    "SQLITE_READONLY": "make it and its folder writable",
    "SQLITE_CANTOPEN": "make its folder writable",
    "SQLITE_CORRUPT": "restore it, or move it away and pay for its responses again",
    "SQLITE_NOTADB": "restore it, or move it away and pay for its responses again",
    "SQLITE_IOERR": "check its disk",
}
FIND = "SELECT answer, usd, estimated, stage FROM calls WHERE key = ?"
SPENT_USD = "SELECT COALESCE(SUM(usd), 0) FROM calls"
INSERT = "INSERT INTO calls (key, answer, usd, stage, estimated, owner) VALUES (?, ?, ?, ?, 1, ?)"
SETTLE = """
UPDATE calls SET answer = :answer, usd = :usd, estimated = :estimated, owner = NULL,
    key = CASE WHEN :key IS NULL OR EXISTS (SELECT 1 FROM calls WHERE key = :key) THEN key ELSE :key END
WHERE key = :reservation
"""
OPEN = "SELECT DISTINCT owner FROM calls WHERE owner IS NOT NULL"


def spending_of(path: Path, stage: str | None) -> dict[str, float]:
    """The spending of a stage (None = all stages) in a journal, including failed and lost calls, for the counts of its manifest.

    Returns:
        `cost_usd`, `estimated_calls` and `estimated_usd`, without zeros; empty without a journal.
    """
    if not path.is_file():
        return {}

    def query() -> Any:
        with closing(connect(path)) as connection:
            upgrade(connection)
            where, values = ("", ()) if stage is None else ("WHERE stage = ?", (stage,))
            sums = "SUM(usd), SUM(estimated AND usd > 0), SUM(estimated * usd)"
            return connection.execute(f"SELECT {sums} FROM calls {where}", values).fetchone()

    names = ("cost_usd", "estimated_calls", "estimated_usd")
    return {name: value for name, value in zip(names, run_guarded(path, query), strict=True) if value}


def take_over_calls(source: Path, target: Path, stage: str) -> None:
    """Copy the calls of a stage from another run's journal, so that a run that continues the stage does not pay for them again."""
    fields = "key, answer, usd, stage, estimated"

    def copy() -> None:
        with closing(connect(source)) as connection:
            upgrade(connection)
            rows = connection.execute(f"SELECT {fields} FROM calls WHERE stage = ?", (stage,)).fetchall()
        if rows:
            with closing(connect(target)) as connection:
                upgrade(connection)
                with connection:
                    connection.execute("BEGIN IMMEDIATE")
                    connection.executemany(f"INSERT OR IGNORE INTO calls ({fields}) VALUES (?, ?, ?, ?, ?)", rows)

    if source.is_file() and not (target.is_file() and source.samefile(target)):
        run_guarded(source, copy)


def owner_name() -> str:
    """An id of this process, which differs from a later process with the same number."""
    return f"{os.getpid()}-{psutil.Process().create_time():.2f}"


def any_owner_runs(connection: sqlite3.Connection) -> bool:
    """Whether a running process still waits for the response to a call."""
    return any(_runs(owner) for (owner,) in connection.execute(OPEN))


def _runs(owner: str) -> bool:
    pid, _, start_time = owner.partition("-")
    try:
        return f"{psutil.Process(int(pid)).create_time():.2f}" == start_time
    except psutil.NoSuchProcess:
        return False


def run_guarded(path: Path, query: Callable[[], Any]) -> Any:
    """Raises:
    StageError: with the file and a fix, if SQLite fails.
    """
    try:
        return query()
    except sqlite3.Error as error:
        name = error.__dict__.get("sqlite_errorname", type(error).__name__)
        fix = next((fix for kind, fix in FIXES.items() if name.startswith(kind)), "check that the file is complete and writable")
        raise StageError(f"the journal of paid calls {path} cannot be used: {error} ({name}); {fix}") from error


def connect(path: Path | None) -> sqlite3.Connection:
    """Raises:
    StageError: if the file is not a journal.
    """
    if path is None:
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        connection.execute(TABLE)
        return connection

    def open_file() -> sqlite3.Connection:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(TABLE)
        return connection

    return run_guarded(path, open_file)


def upgrade(connection: sqlite3.Connection) -> None:
    """Add the columns of a run's journal, and abandon calls whose process has ended: they count as paid."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        columns = {row[1] for row in connection.execute("PRAGMA table_info(calls)")}
        for name, kind in OWN_COLUMNS.items():
            if name not in columns:
                connection.execute(f"ALTER TABLE calls ADD COLUMN {name} {kind}")
        connection.execute("CREATE INDEX IF NOT EXISTS money ON calls (stage, usd, estimated)")
        connection.execute("CREATE INDEX IF NOT EXISTS open ON calls (owner) WHERE owner IS NOT NULL")
        for (owner,) in connection.execute(OPEN).fetchall():
            if not _runs(owner):
                connection.execute("UPDATE calls SET owner = NULL WHERE owner = ?", (owner,))
