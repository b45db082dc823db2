"""The SQLite file behind a journal of paid calls: its table, what its errors mean, and what a stage has spent by it."""

import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from eva_stages.core.errors import StageError

CALLS = "calls.sqlite"
SENT = "sent-"
"""How the keys of rows begin that stand for a call without a usable answer."""
BUSY_SECONDS = 60
UNANSWERED = json.dumps({"failure": "sent, and no answer was seen"})
TABLE = "CREATE TABLE IF NOT EXISTS calls (key TEXT PRIMARY KEY, answer TEXT NOT NULL, usd REAL NOT NULL)"
OWN_COLUMNS = {"stage": "TEXT", "estimated": "INTEGER NOT NULL DEFAULT 0", "owner": "TEXT"}
"""Columns of a run's journal that a shared cache does not have: who paid, whether `usd` is our estimate, which process waits for it."""
FIXES = {
    "SQLITE_FULL": "free some space on its disk",
    "SQLITE_BUSY": "another process holds it; end that process or wait for it",
    "SQLITE_LOCKED": "another process holds it; end that process or wait for it",
    "SQLITE_READONLY": "make it and its folder writable",
    "SQLITE_CANTOPEN": "make its folder writable",
    "SQLITE_CORRUPT": "restore it, or move it away; the answers in it are then paid for again",
    "SQLITE_NOTADB": "restore it, or move it away; the answers in it are then paid for again",
    "SQLITE_IOERR": "check its disk",
}
FIND = "SELECT answer, usd, estimated, stage FROM calls WHERE key = ?"
SPENT = "SELECT COALESCE(SUM(usd), 0) FROM calls"
INSERT = "INSERT INTO calls (key, answer, usd, stage, estimated, owner) VALUES (?, ?, ?, ?, 1, ?)"
SETTLE = """
UPDATE calls SET answer = :answer, usd = :usd, estimated = :estimated, owner = NULL,
    key = CASE WHEN :key IS NULL OR EXISTS (SELECT 1 FROM calls WHERE key = :key) THEN key ELSE :key END
WHERE key = :reservation
"""
OPEN = "SELECT DISTINCT owner FROM calls WHERE owner IS NOT NULL"


def paid(path: Path, stage: str | None) -> dict[str, float]:
    """What a stage (None = all) has spent by a journal, failed and lost calls included, for the counts of its manifest.

    Returns:
        `cost_usd` and `estimated_calls`, those that are not 0; nothing where there is no journal.
    """
    if not path.is_file():
        return {}

    def query() -> Any:
        connection = connect(path)
        try:
            upgrade(connection)
            where, values = ("", ()) if stage is None else ("WHERE stage = ?", (stage,))
            return connection.execute(f"SELECT SUM(usd), SUM(estimated AND usd > 0) FROM calls {where}", values).fetchone()
        finally:
            connection.close()

    usd, estimated = guarded(path, query)
    return {name: value for name, value in (("cost_usd", usd), ("estimated_calls", estimated)) if value}


def owner_name() -> str:
    """This process, told apart from a later one with the same number."""
    return f"{os.getpid()}-{psutil.Process().create_time():.2f}"


def any_owner_runs(connection: sqlite3.Connection) -> bool:
    """Whether a process still waits for the answer to a call."""
    return any(_runs(owner) for (owner,) in connection.execute(OPEN))


def _runs(owner: str) -> bool:
    pid, _, created = owner.partition("-")
    try:
        return f"{psutil.Process(int(pid)).create_time():.2f}" == created
    except psutil.NoSuchProcess:
        return False


def guarded(path: Path, query: Callable[[], Any]) -> Any:
    """Raises:
    StageError: with the file and the fix, where SQLite fails.
    """
    try:
        return query()
    except sqlite3.Error as error:
        name = error.__dict__.get("sqlite_errorname", type(error).__name__)
        fix = next((fix for kind, fix in FIXES.items() if name.startswith(kind)), "see whether the file is whole and writable")
        raise StageError(f"the journal of paid calls {path} cannot be used: {error} ({name}); {fix}") from error


def connect(path: Path | None) -> sqlite3.Connection:
    """Raises:
    StageError: if the file is no journal.
    """
    if path is None:
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        connection.execute(TABLE)
        return connection

    def opened() -> sqlite3.Connection:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(TABLE)
        return connection

    return guarded(path, opened)


def upgrade(connection: sqlite3.Connection) -> None:
    """Add what a run's journal has beyond a cache, and give up the answers that no living process waits for: they count as paid."""
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
