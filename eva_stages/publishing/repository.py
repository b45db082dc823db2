"""A repository of the Hub as a push wants it: its files, each with its bytes or the path of a file on disk."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from eva_stages.core.fingerprint import file_digest


@dataclass(frozen=True)
class File:
    """A file of a repository."""

    path: str
    content: Path | bytes
    source: str | None = None
    """The complete artifact's file that this is, unchanged; it never changes, so its hash can be reused."""

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


@dataclass(frozen=True)
class Repository:
    """A repository as it should be after a push."""

    id: str
    kind: Literal["dataset", "model"]
    files: tuple[File, ...]

    @property
    def name(self) -> str:
        return f"{self.kind}s/{self.id}"


def json_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def sha256(file: File, pushed_files: dict[str, Any]) -> str:
    """The sha256 of a file's bytes, from memory where it cannot have changed."""
    entry = pushed_files.get(file.path, {})
    if file.source is not None and entry.get("source") == file.source:
        return str(entry["sha256"])
    return file_digest(file.content) if isinstance(file.content, Path) else hashlib.sha256(file.content).hexdigest()
