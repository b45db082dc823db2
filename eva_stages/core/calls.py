"""A journal of paid calls: what a provider answered is on disk before it is used, so that nothing is paid for twice.

One SQLite file, one row per finished call, under the hash of everything that makes the call what it is. Failed calls are not kept.
Calls that finish while the disk is busy are committed together: a sync takes tens of milliseconds, and one for each call would be
most of a run's time. A second file may be given to look calls up in that other runs made; what they paid is not counted as spent.
Limits: SQLite's write-ahead log needs a file system with shared memory (not NFS across machines).
"""

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

from eva_stages.core.fingerprint import fingerprint

Row = tuple[str, str, float]
CALLS = "calls.sqlite"


class Journal:
    """Finished calls by key.

    Args:
        path: the journal's file; None = in memory.
        shared: file with calls of other runs too, read and added to.
    """

    def __init__(self, path: Path | None, shared: Path | None = None) -> None:
        files = [file for file in (path, shared) if file is not None]
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
        self._writers = [_connect(file) for file in files]
        self._readers = [_connect(file) for file in files]
        self._recent: dict[str, str] = {}
        self._spent = self._readers[0].execute("SELECT COALESCE(SUM(usd), 0) FROM calls").fetchone()[0] if path else 0.0
        self._waiting: list[tuple[Row, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    def find(self, key: str) -> Any:
        """What the call gave, or None if it was not made."""
        if key in self._recent:
            return json.loads(self._recent[key])
        for reader in self._readers:
            if row := reader.execute("SELECT answer FROM calls WHERE key = ?", (key,)).fetchone():
                return json.loads(row[0])
        return None

    def keep(self, key: str, answer: Any, usd: float) -> "asyncio.Future[None]":
        """Write a finished call; durable when what this returns is done. The money counts as spent at once."""
        done = asyncio.get_running_loop().create_future()
        self._spent += usd
        text = json.dumps(answer, ensure_ascii=False)
        if not self._writers:
            self._recent[key] = text
            done.set_result(None)
            return done
        self._waiting.append(((key, text, usd), done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        return done

    async def settle(self) -> None:
        """Wait until all that was to be kept is on disk."""
        if self._writing is not None:
            await self._writing

    async def _write(self) -> None:
        """Commit whatever waits, one transaction after the other, until nothing does."""
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await asyncio.to_thread(self._commit, [row for row, _ in batch])
            except sqlite3.Error as error:
                for done in _awaited(batch):
                    done.set_exception(error)
                continue
            for done in _awaited(batch):
                done.set_result(None)

    def _commit(self, rows: list[Row]) -> None:
        for writer in self._writers:
            with writer:
                writer.execute("BEGIN IMMEDIATE")
                writer.executemany("INSERT OR IGNORE INTO calls VALUES (?, ?, ?)", rows)

    def spent(self) -> float:
        """US dollars of all calls in the journal, whoever made them."""
        return float(self._spent)

    def close(self) -> None:
        for connection in (*self._readers, *self._writers):
            connection.close()


def _awaited(batch: "list[tuple[Row, asyncio.Future[None]]]") -> "list[asyncio.Future[None]]":
    """Those that somebody still waits for."""
    return [done for _, done in batch if not done.done()]


def call_key(request: dict[str, Any]) -> str:
    """The hash of model, messages and settings."""
    return fingerprint(request)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS calls (key TEXT PRIMARY KEY, answer TEXT NOT NULL, usd REAL NOT NULL)")
    return connection
