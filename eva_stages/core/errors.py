"""One tree of errors; every leaf is also the standard type it refines, so that callers may catch either."""

import os
from pathlib import Path

from eva_stages.core.redaction import redact

LONGEST_CAUSE = 500
"""Longest message of an exception that is shown, in characters; the log has all of it."""


class EvaError(Exception):
    """Anything eva reports to a person in its own words."""


class ConfigError(EvaError, ValueError):
    """A recipe or an argument is wrong. `faults` holds every fault found, each with its place and its fix."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        super().__init__("\n".join(faults))


class MissingKeyError(ConfigError):
    """A provider's key is not in the environment: all that is lacking for the money to be spent."""


class DataError(EvaError, ValueError):
    """An input file or an artifact does not hold what it should."""


class DamagedError(DataError):
    """A file that eva wrote is not what was written. `command` is what to run; None = the run's own, with `--repair`."""

    def __init__(self, message: str, command: str | None = None) -> None:
        self.command = command
        super().__init__(message)


class UnreadableError(EvaError, OSError):
    """The system does not let us read a file, which may be good: too many open files, an I/O error, no permission."""

    def __init__(self, path: Path, error: OSError) -> None:
        number = error.errno or 0
        super().__init__(f"cannot read {path}: {os.strerror(number)} (errno {number}). Nothing was changed; resolve that and rerun")


class LockedError(EvaError, BlockingIOError):
    """Another process works on the same run."""


class StageError(EvaError, RuntimeError):
    """A stage failed; what it had written stays in its work folder and the next attempt goes on from there."""


class HubError(EvaError, ConnectionError):
    """The Hub cannot be reached, or refuses; what has been uploaded stays there and the next attempt goes on from it."""


def describe(error: BaseException) -> str:
    """An exception in one line without secrets: eva's own words, or the type and the message; the type alone where there is none."""
    try:
        message = " ".join(redact(str(error)).split())
    except Exception as unreadable:  # a class whose __str__ fails
        message = f"(no message: {type(unreadable).__name__})"
    name = type(error).__name__
    if isinstance(error, EvaError):
        return message or name
    if len(message) > LONGEST_CAUSE:
        message = f"{message[:LONGEST_CAUSE]} ..."
    return f"{name}: {message}" if message else name


def hub_failures() -> tuple[type[Exception], ...]:
    """What the Hub's client raises where the Hub cannot be reached and its cache does not have the file either."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    return LocalEntryNotFoundError, HfHubHTTPError, httpx.HTTPError, OSError
