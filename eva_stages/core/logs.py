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
