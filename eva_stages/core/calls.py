"""A journal of paid calls: nothing is paid for twice, and what may have been paid for is on disk before it is.

One SQLite file, one row per call. Before a call is sent its row is written with the most that it can cost; with the answer the row takes
its real key, text and price, and a call that cost nothing is deleted. So the sum of `usd` is at every moment the most that was spent,
across kills and whatever processes share the file, and a cap is checked in the transaction that adds to it. Raw answers are kept, so that
an error in reading them costs nothing. Operations that wait while the disk is busy are committed together: a sync takes tens of
milliseconds, and one for each call would be most of a run's time. A second file may be given to look calls up in that other runs made;
what they paid is not counted as spent. Limits: SQLite's write-ahead log needs a file system with shared memory (not NFS across machines).
"""

import asyncio
import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from eva_stages.core.call_file import (
    FIND,
    FIXES,
    INSERT,
    SENT,
    SETTLE,
    SPENT,
    UNANSWERED,
    any_owner_runs,
    connect,
    guarded,
    owner_name,
    upgrade,
)
from eva_stages.core.errors import StageError
from eva_stages.core.fingerprint import fingerprint

Operation = Callable[[sqlite3.Connection], Any]


@dataclass(frozen=True)
class Entry:
    """A call that was made before.

    `ours`: the stage that asks has paid for it, in this attempt or an earlier one.
    """

    answer: Any
    usd: float
    estimated: bool
    ours: bool


@dataclass(frozen=True)
class Reservation:
    """The most that a call can cost, set aside."""

    key: str | None
    """None where the cap leaves no room."""
    usd: float
    waiting: bool = False
    """Whether calls under way, of this process or another, may still free some room."""


class Journal:
    """Calls by key.

    Args:
        path: the journal's file; None = in memory.
        shared: file with calls of other runs too, read and added to.
        stage: who pays from now on.

    Raises:
        StageError: here and in every method, naming the file and the fix, if SQLite cannot read or write it.
    """

    def __init__(self, path: Path | None, shared: Path | None = None, stage: str | None = None) -> None:
        self._stage, self._owner = stage, owner_name()
        self._path = path if path is not None else Path("the journal in memory")
        self._shared_path = shared if shared is not None else Path()
        self._writer = connect(path)
        guarded(self._path, lambda: upgrade(self._writer))
        self._reader = self._writer if path is None else connect(path)
        self._shared = connect(shared) if shared is not None else None
        self._total, self._version = 0.0, -1
        self._waiting: list[tuple[Operation, bool, asyncio.Future[Any]]] = []
        self._new_shared: list[tuple[str, str, float]] = []
        self._writing: asyncio.Task[None] | None = None

    def find(self, key: str) -> Entry | None:
        """The call, if it was made; by this run before by others."""
        row = guarded(self._path, lambda: self._reader.execute(FIND, (key,)).fetchone())
        if row is not None:
            answer, usd, estimated, stage = row
            return Entry(_decoded(answer, self._path), usd, bool(estimated), stage is None or stage == self._stage)
        if self._shared is None:
            return None
        shared, path = self._shared, self._shared_path
        row = guarded(path, lambda: shared.execute("SELECT answer, usd FROM calls WHERE key = ?", (key,)).fetchone())
        return None if row is None else Entry(_decoded(row[0], path), row[1], False, False)

    async def reserve(self, usd: float, cap: float | None = None) -> Reservation:
        """Set `usd` aside for a call, unless more than `cap` would be spent with it."""
        key = f"{SENT}{uuid4()}"

        def operation(connection: sqlite3.Connection) -> Reservation:
            if cap is not None and self._total + usd > cap:
                return Reservation(None, usd, any_owner_runs(connection))
            connection.execute(INSERT, (key, UNANSWERED, usd, self._stage, self._owner))
            self._total += usd
            return Reservation(key, usd)

        return await self._queued(operation, durable=False)

    def settle(
        self, reservation: Reservation, key: str | None, answer: Any, usd: float, estimated: bool = False, cap: float | None = None
    ) -> "asyncio.Future[None]":
        """Replace a call's reservation by its answer and cost; durable once the returned future is done.

        Args:
            key: what the answer is found by; None = it is of no use, and only its price counts.
            usd: 0 without a key leaves nothing in the journal.
            cap: what was reserved is counted in any case, what was paid beyond it only up to this.
        """
        text = json.dumps(answer)

        def operation(connection: sqlite3.Connection) -> None:
            counted = usd if cap is None else min(usd, max(reservation.usd, cap - self._total + reservation.usd))
            if key is None and not usd:
                connection.execute("DELETE FROM calls WHERE key = ?", (reservation.key,))
            else:  # of equal calls, made by two processes at once, both are paid for and one is found
                row = {"key": key, "answer": text, "usd": counted, "estimated": estimated, "reservation": reservation.key}
                connection.execute(SETTLE, row)
            self._total += counted - reservation.usd

        if self._shared is not None and key is not None:
            self._new_shared.append((key, text, usd))
        return self._queued(operation, durable=True)

    async def flush(self) -> None:
        """Wait until all that was to be kept is on disk."""
        if self._writing is not None:
            await self._writing

    def spent(self) -> float:
        """US dollars of all calls in the journal, whoever made them, those that may have been paid for included."""
        return float(guarded(self._path, lambda: self._reader.execute(SPENT).fetchone()[0]))

    def close(self) -> None:
        for connection in (self._reader, self._writer, self._shared):
            if connection is not None:
                connection.close()

    def _queued(self, operation: Operation, durable: bool) -> "asyncio.Future[Any]":
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((operation, durable, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        return done

    async def _write(self) -> None:
        """Commit whatever waits, one transaction after the other, until nothing does. Whoever waits hears of every failure."""
        while self._waiting:
            batch, self._waiting = self._waiting, []
            shared, self._new_shared = self._new_shared, []
            try:
                durable = any(durable for _, durable, _ in batch)
                results = await asyncio.to_thread(self._commit, [operation for operation, _, _ in batch], durable, shared)
            except BaseException as error:
                for _, _, done in batch:
                    if not done.done():
                        done.set_exception(error if isinstance(error, Exception) else StageError(f"the journal's writer ended: {error!r}"))
                if not isinstance(error, Exception):
                    raise
                continue
            for (_, _, done), result in zip(batch, results, strict=True):
                if not done.done():
                    done.set_result(result)

    def _commit(self, operations: list[Operation], durable: bool, shared: list[tuple[str, str, float]]) -> list[Any]:
        def own() -> list[Any]:
            # a reservation outlives a kill without a sync; only a power cut, which ends the calls too, can lose it
            self._writer.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            with self._writer:
                self._writer.execute("BEGIN IMMEDIATE")
                version = self._writer.execute("PRAGMA data_version").fetchone()[0]
                if version != self._version:  # another process has written
                    self._total, self._version = self._writer.execute(SPENT).fetchone()[0], version
                return [operation(self._writer) for operation in operations]

        try:
            results: list[Any] = guarded(self._path, own)
        except BaseException:
            self._version = -1
            raise
        if self._shared is not None and shared:
            guarded(self._shared_path, lambda: self._add_shared(shared))
        return results

    def _add_shared(self, rows: list[tuple[str, str, float]]) -> None:
        assert self._shared is not None
        with self._shared as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT OR IGNORE INTO calls (key, answer, usd) VALUES (?, ?, ?)", rows)


def call_key(request: dict[str, Any]) -> str:
    """The hash of model, messages and settings."""
    return fingerprint(request)


def _decoded(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise StageError(f"{path} holds an answer that is not JSON ({error}); {FIXES['SQLITE_CORRUPT']}") from error
