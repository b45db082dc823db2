"""The tree of errors; every leaf also has a standard type, so that callers can catch either."""

import os
import re
from pathlib import Path

from eva_stages.core.redaction import redact

LONGEST_CAUSE = 500
"""Most characters of an exception's message on the terminal; the log contains all of it."""
_OBJECT = re.compile(r"\S*<\S+ object at 0x[0-9a-f]+>")
"""An object that a library printed into its message: it says nothing, and its address differs from run to run."""


class EvaError(Exception):
    """Any error with a message for the user."""


class ConfigError(EvaError, ValueError):
    """A recipe or an argument is wrong. `faults` holds every fault found, each with its place and its fix."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        super().__init__("\n".join(faults))


class MissingKeyError(ConfigError):
    """A provider's key is not in the environment."""


class DataError(EvaError, ValueError):
    """An input file or an artifact has invalid content."""


class DamagedError(DataError):
    """A file that eva wrote has changed. `command` repairs it; None = the run's own command with `--repair`."""

    def __init__(self, message: str, command: str | None = None) -> None:
        self.command = command
        super().__init__(message)


class UnreadableError(EvaError, OSError):
    """The system cannot read a file that may be intact: too many open files, an I/O error, no permission."""

    def __init__(self, path: Path, error: OSError) -> None:
        number = error.errno or 0
        super().__init__(f"cannot read {path}: {os.strerror(number)} (errno {number}). Nothing was changed; resolve this error and rerun")


class LockedError(EvaError, BlockingIOError):
    """Another process uses the same run."""


class StageError(EvaError, RuntimeError):
    """A stage failed; its output stays in its work folder, and the next attempt resumes from it."""


class HubError(EvaError, ConnectionError):
    """The Hub cannot be reached, or rejects a request; uploaded files stay there, and the next attempt resumes from them."""


def describe(error: BaseException) -> str:
    """An exception in one line without secrets: the message of an `EvaError`, or type and message of any other."""
    try:
        message = " ".join(_OBJECT.sub("", redact(str(error))).split())
    except Exception as unreadable:  # a class whose __str__ fails
        message = f"(no message: {type(unreadable).__name__})"
    name = type(error).__name__
    if isinstance(error, EvaError):
        return message or name
    if len(message) > LONGEST_CAUSE:
        message = f"{message[:LONGEST_CAUSE]} ..."
    return f"{name}: {message}" if message else name


def hub_failures() -> tuple[type[Exception], ...]:
    """Exceptions of the Hub's client if the Hub cannot be reached and its cache does not contain the file."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    return LocalEntryNotFoundError, HfHubHTTPError, httpx.HTTPError, OSError
