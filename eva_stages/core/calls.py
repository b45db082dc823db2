"""A journal of paid calls: no call is paid for twice, and a possible payment is on disk before the call is sent.

One SQLite file, one row per call. Before a call is sent, its row is written with its worst-case cost; with the response, the row gets its
real key, text and price, and a call that cost nothing is deleted. So the sum of `usd` is always an upper bound of the spending, across
kills and all processes that share the file, and the cap is checked in the transaction that adds to it. Raw responses are saved, so that an
error in reading them costs nothing. Operations that wait for the disk are committed together, because a sync takes tens of milliseconds.
A second file can share calls between runs; its costs do not count as spending of this run. Limit: SQLite's write-ahead log needs a file
system with shared memory (not NFS across machines).
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
    SENT_PREFIX,
    SETTLE,
    SPENT_USD,
    UNANSWERED_CALL,
    any_owner_runs,
    connect,
    owner_name,
    run_guarded,
    upgrade,
)
from eva_stages.core.errors import StageError
from eva_stages.core.fingerprint import fingerprint

Operation = Callable[[sqlite3.Connection], Any]


@dataclass(frozen=True)
class Entry:
    """A finished call.

    `is_own_payment`: the requesting stage has paid for it, in this attempt or an earlier one.
    """

    answer: Any
    usd: float
    is_estimate: bool
    is_own_payment: bool


@dataclass(frozen=True)
class Reservation:
    """The reserved worst-case cost of a call."""

    key: str | None
    """None if the cap is reached."""
    usd: float
    waiting: bool = False
    """Whether active calls, of any process, may still release a part of their reservations."""
    total_usd: float = 0.0
    """If the cap is reached: US dollars of all calls in the journal at that moment, later reservations not counted."""


class Journal:
    """Calls by key.

    Args:
        path: the journal's file; None = in memory.
        shared_path: file with the calls of all runs, which is read and extended.
        stage: the stage that pays for new calls.

    Raises:
        StageError: here and in every method, with the file and a fix, if SQLite cannot read or write it.
    """

    def __init__(self, path: Path | None, shared_path: Path | None = None, stage: str | None = None) -> None:
        self._stage, self._owner = stage, owner_name()
        self._path = path if path is not None else Path("the journal in memory")
        self._shared_path = shared_path if shared_path is not None else Path()
        self._writer = connect(path)
        run_guarded(self._path, lambda: upgrade(self._writer))
        self._reader = self._writer if path is None else connect(path)
        self._shared_file = connect(shared_path) if shared_path is not None else None
        self._total, self._version = 0.0, -1
        self._waiting: list[tuple[Operation, bool, asyncio.Future[Any]]] = []
        self._new_shared: list[tuple[str, str, float]] = []
        self._writing: asyncio.Task[None] | None = None

    def find(self, key: str) -> Entry | None:
        """A finished call, of this run or else of other runs; None if there is none."""
        row = run_guarded(self._path, lambda: self._reader.execute(FIND, (key,)).fetchone())
        if row is not None:
            answer, usd, is_estimate, stage = row
            return Entry(_decode(answer, self._path), usd, bool(is_estimate), stage is None or stage == self._stage)
        if self._shared_file is None:
            return None
        shared_file, path = self._shared_file, self._shared_path
        row = run_guarded(path, lambda: shared_file.execute("SELECT answer, usd FROM calls WHERE key = ?", (key,)).fetchone())
        return None if row is None else Entry(_decode(row[0], path), row[1], False, False)

    async def reserve(self, usd: float, cap: float | None = None) -> Reservation:
        """Reserve `usd` for a call, unless the total would exceed `cap`."""
        key = f"{SENT_PREFIX}{uuid4()}"

        def operation(connection: sqlite3.Connection) -> Reservation:
            if cap is not None and self._total + usd > cap:
                return Reservation(None, usd, any_owner_runs(connection), self._total)
            connection.execute(INSERT, (key, UNANSWERED_CALL, usd, self._stage, self._owner))
            self._total += usd
            return Reservation(key, usd)

        return await self._enqueue(operation, durable=False)

    def settle(
        self, reservation: Reservation, key: str | None, answer: Any, usd: float, is_estimate: bool = False, cap: float | None = None
    ) -> "asyncio.Future[None]":
        """Replace a call's reservation by its response and cost; durable once the returned future is done.

        Args:
            key: key of the response; None = the response is unusable, and only its cost counts.
            usd: 0 without a key removes the call from the journal.
            cap: costs above the reservation count up to this total.
        """
        text = json.dumps(answer)

        def operation(connection: sqlite3.Connection) -> None:
            counted_usd = usd if cap is None else min(usd, max(reservation.usd, cap - self._total + reservation.usd))
            if key is None and not usd:
                connection.execute("DELETE FROM calls WHERE key = ?", (reservation.key,))
            else:  # of equal calls by two processes at once, both are paid for and `find` returns the first
                row = {"key": key, "answer": text, "usd": counted_usd, "estimated": is_estimate, "reservation": reservation.key}
                connection.execute(SETTLE, row)
            self._total += counted_usd - reservation.usd

        if self._shared_file is not None and key is not None:
            self._new_shared.append((key, text, usd))
        return self._enqueue(operation, durable=True)

    async def flush(self) -> None:
        """Wait until all operations are on disk."""
        if self._writing is not None:
            await self._writing

    def spent_usd(self) -> float:
        """US dollars of all calls in the journal, of any stage, including calls that may have been billed."""
        return float(run_guarded(self._path, lambda: self._reader.execute(SPENT_USD).fetchone()[0]))

    def close(self) -> None:
        for connection in (self._reader, self._writer, self._shared_file):
            if connection is not None:
                connection.close()

    def _enqueue(self, operation: Operation, durable: bool) -> "asyncio.Future[Any]":
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((operation, durable, future))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        return future

    async def _write(self) -> None:
        """Commit the waiting operations, one transaction after another. An error is passed to every waiting caller."""
        while self._waiting:
            batch, self._waiting = self._waiting, []
            shared_rows, self._new_shared = self._new_shared, []
            try:
                durable = any(durable for _, durable, _ in batch)
                results = await asyncio.to_thread(self._commit, [operation for operation, _, _ in batch], durable, shared_rows)
            except BaseException as error:
                for _, _, future in batch:
                    if not future.done():
                        future.set_exception(
                            error if isinstance(error, Exception) else StageError(f"the journal's writer ended: {error!r}")
                        )
                if not isinstance(error, Exception):
                    raise
                continue
            for (_, _, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)

    def _commit(self, operations: list[Operation], durable: bool, shared_rows: list[tuple[str, str, float]]) -> list[Any]:
        def run_operations() -> list[Any]:
            # reservations need no sync: they survive a kill, and a power cut also ends the calls
            self._writer.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            with self._writer:
                self._writer.execute("BEGIN IMMEDIATE")
                version = self._writer.execute("PRAGMA data_version").fetchone()[0]
                if version != self._version:  # another process has written
                    self._total, self._version = self._writer.execute(SPENT_USD).fetchone()[0], version
                return [operation(self._writer) for operation in operations]

        try:
            results: list[Any] = run_guarded(self._path, run_operations)
        except BaseException:
            self._version = -1
            raise
        if self._shared_file is not None and shared_rows:
            run_guarded(self._shared_path, lambda: self._add_shared(shared_rows))
        return results

    def _add_shared(self, rows: list[tuple[str, str, float]]) -> None:
        assert self._shared_file is not None
        with self._shared_file as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT OR IGNORE INTO calls (key, answer, usd) VALUES (?, ?, ?)", rows)


def call_key(request: dict[str, Any]) -> str:
    """The hash of model, messages and settings."""
    return fingerprint(request)


def _decode(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise StageError(f"{path} contains a response that is not JSON ({error}); {FIXES['SQLITE_CORRUPT']}") from error
