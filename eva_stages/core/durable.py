"""Writing that survives a kill and a power cut: a file is complete or does not exist."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eva_stages.core.errors import EvaError, StageError
from eva_stages.core.redaction import redact

SPACE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ACCESS_ERRORS = (errno.EROFS, errno.EACCES, errno.EPERM)
UNWRITABLE = (*SPACE_ERRORS, *ACCESS_ERRORS)


def sync(path: Path) -> None:
    """Flush a file or a folder entry to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, text: str) -> None:
    """Write a text file, without secrets, atomically."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(redact(text), encoding="utf-8")
    sync(partial)
    partial.replace(path)
    sync(path.parent)


def unwritable(error: OSError, place: Path) -> StageError:
    """The error for a place that cannot be written to, with the reason and the fix."""
    existing_folder = next(folder for folder in (place, *place.absolute().parents) if os.access(folder, os.F_OK))
    why = f"{os.strerror(error.errno or 0)} ({shutil.disk_usage(existing_folder).free / 2**20:.0f} MiB free)"
    fix = "Make it writable" if error.errno in ACCESS_ERRORS else "Free some space"
    return StageError(f"cannot write to {place}: {why}. {fix}; completed work is saved")


@contextmanager
def writing_to(place: Path) -> Iterator[None]:
    """Turn errors of a full or read-only place into a `StageError`.

    Raises:
        StageError: with the reason and the fix.
    """
    try:
        yield
    except EvaError:
        raise
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        raise unwritable(error, place) from error
