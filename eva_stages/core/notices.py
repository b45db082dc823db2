"""Notices of a stage's processes for the user: a file of JSON lines in the attempt's folder.

Workers have no terminal: their output goes to a log. The runner reads the file while it waits, prints each notice once, and saves the
lasting ones (for example settings that a model ignores) in the stage's manifest.
"""

import json
import os
from pathlib import Path

from eva_stages.core.redaction import redact

NOTICES = "notices.jsonl"


def write_notice(folder: Path, text: str, lasting: bool = False) -> None:
    """Add a notice for the user.

    Args:
        folder: of the attempt.
        lasting: it belongs in the stage's manifest too.
    """
    line = json.dumps({"text": redact(text), "lasting": lasting}) + "\n"
    descriptor = os.open(folder / NOTICES, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


class NoticeReader:
    """Reads an attempt's notices as they come, each text once."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NOTICES
        self._offset = 0
        self._texts: dict[str, bool] = {}

    def new_texts(self) -> list[str]:
        """The texts that have come since the last call."""
        if not self._path.is_file() or self._path.stat().st_size == self._offset:
            return []
        with self._path.open("rb") as stream:
            stream.seek(self._offset)
            content = stream.read()
        lines = content[: content.rfind(b"\n") + 1]
        self._offset += len(lines)
        notices = [json.loads(line) for line in lines.splitlines()]
        texts = [notice["text"] for notice in notices if notice["text"] not in self._texts]
        self._texts |= {notice["text"]: notice["lasting"] for notice in notices}
        return list(dict.fromkeys(texts))

    def lasting_texts(self) -> list[str]:
        """The notices read so far that belong in the manifest."""
        return [text for text, lasting in self._texts.items() if lasting]
