"""Log files: the output of stages, trainers and libraries, and the tracebacks of unexpected errors, without secrets."""

import multiprocessing
import os
import re
import tempfile
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path

from eva_stages.core.redaction import redact

ERRORS = "error.log"
LOGS = "*.log"
MOST_LOG_BYTES = 1 << 18
"""Of each log of a complete stage: what a person reads, not all that a long training printed."""
CHUNK = 1 << 16
LONGEST_LINE = 1 << 18
HELD_BACK_BYTES = 1 << 12
"""Bytes of a longer line that wait for what follows, so that no secret is cut in two."""
DRAIN_SECONDS = 5
_LINES = re.compile(rb"(?<=[\r\n])")


@contextmanager
def clean_log(log: Path) -> Iterator[Connection]:
    """A pipe for a process's output, which is appended to the file `log`, without secrets.

    The file is complete when the block has ended, unless a process still holds the pipe.
    """
    with suppress(OSError):  # a full disk, which other code reports
        log.touch()
    reader, writer = multiprocessing.Pipe(duplex=False)
    copying = threading.Thread(target=_copy, args=(reader, log), daemon=True)
    copying.start()
    try:
        yield writer
    finally:
        writer.close()
        copying.join(DRAIN_SECONDS)


def _copy(reader: Connection, log: Path) -> None:
    """Copy until all writers are closed. On a full disk the rest is read and dropped: missing output must not fail a stage."""
    waiting = b""
    while chunk := os.read(reader.fileno(), CHUNK):
        *lines, waiting = _LINES.split(waiting + chunk)
        if len(waiting) > LONGEST_LINE:
            lines, waiting = [*lines, waiting[:-HELD_BACK_BYTES]], waiting[-HELD_BACK_BYTES:]
        _append(log, b"".join(lines))
    _append(log, waiting)
    reader.close()


def _append(log: Path, text: bytes) -> None:
    if text:
        with suppress(OSError), log.open("ab") as stream:
            stream.write(redact(text.decode(errors="replace")).encode(errors="replace"))


class LogReader:
    """Reads the lines that the logs in a folder get from now on.

    Args:
        folder: of an attempt; logs that are created later are read too.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offsets = {path: path.stat().st_size for path in folder.glob(LOGS)}

    def new_lines(self) -> list[str]:
        """The complete lines since the last call."""
        lines: list[str] = []
        for path in sorted(self._folder.glob(LOGS)):
            with suppress(OSError), path.open("rb") as stream:
                stream.seek(self._offsets.get(path, 0))
                text = stream.read()
                complete_text = text[: text.rfind(b"\n") + 1]
                self._offsets[path] = self._offsets.get(path, 0) + len(complete_text)
                # of a progress bar, which returns to the start of its line, the last state
                lines += [line.rstrip("\r").rpartition("\r")[2] for line in complete_text.decode(errors="replace").split("\n")]
        return [line for line in lines if line.strip()]


def keep_logs(work: Path, artifact: Path) -> None:
    """Copy the logs of an attempt into the folder of its artifact, of each the last `MOST_LOG_BYTES`. A full disk copies less."""
    for log in sorted(work.glob(LOGS)):
        with suppress(OSError), log.open("rb") as stream:
            omitted_bytes = max(0, log.stat().st_size - MOST_LOG_BYTES)
            stream.seek(omitted_bytes)
            text = stream.read(MOST_LOG_BYTES)
            if omitted_bytes:
                text = f"[{omitted_bytes:,} earlier bytes are not kept]\n".encode() + text[text.find(b"\n") + 1 :]
            if text:
                (artifact / log.name).write_bytes(text)


def logs_in(folder: Path) -> list[Path]:
    """The logs of a stage, in the folder of its artifact or of its attempt; those that are empty left out."""
    return [path for path in sorted(folder.glob(LOGS)) if path.stat().st_size]


def save_traceback(error: BaseException, folder: Path | None) -> Path:
    """Append the plain traceback of an error, without the values of variables, to `error.log` in the folder of a run.

    Returns:
        The file; a new temporary file if there is no folder, or it cannot be written to.
    """
    text = redact("".join(traceback.format_exception(error)))
    if folder is not None:
        with suppress(OSError), (folder / ERRORS).open("a", encoding="utf-8", errors="replace") as stream:
            stream.write(text + "\n")
            return folder / ERRORS
    descriptor, name = tempfile.mkstemp(prefix="eva-error-", suffix=".log")
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as stream:
        stream.write(text)
    return Path(name)
