"""A journal of paid calls: what a provider answered is on disk before it is used, so that nothing is paid for twice.

One SQLite file per stage, one row per finished call, under the hash of everything that makes the call what it is. Failed calls are
not kept. Money spent by earlier attempts of the stage is the sum of its rows.
"""

import json
import sqlite3
from pathlib import Path
from typing import Any

from eva_stages.core.fingerprint import fingerprint

IN_MEMORY = ":memory:"


class Journal:
    """Finished calls by key."""

    def __init__(self, path: Path | None) -> None:
        self._connection = sqlite3.connect(path or IN_MEMORY, timeout=60, isolation_level=None)
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("CREATE TABLE IF NOT EXISTS calls (key TEXT PRIMARY KEY, answer TEXT NOT NULL, usd REAL NOT NULL)")

    def find(self, request: dict[str, Any]) -> Any:
        """What the call gave, or None if it was not made."""
        row = self._connection.execute("SELECT answer FROM calls WHERE key = ?", (fingerprint(request),)).fetchone()
        return None if row is None else json.loads(row[0])

    def keep(self, request: dict[str, Any], answer: Any, usd: float) -> None:
        """Write a finished call; durable when this returns."""
        row = (fingerprint(request), json.dumps(answer, ensure_ascii=False), usd)
        self._connection.execute("INSERT OR IGNORE INTO calls VALUES (?, ?, ?)", row)

    def spent(self) -> float:
        """US dollars of all calls, whoever made them."""
        return float(self._connection.execute("SELECT COALESCE(SUM(usd), 0) FROM calls").fetchone()[0])

    def close(self) -> None:
        self._connection.close()
