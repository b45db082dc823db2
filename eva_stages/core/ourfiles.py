"""Reading files that eva wrote and that may have been damaged since.

Wrong content is a `DamagedError` with the path of the file. A file that the system does not let us read (too many open files, an I/O
error, no permission) may be intact: that is an `UnreadableError`, which causes no repair and no deletion.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from eva_stages.core.decoding import decode_json, decode_yaml
from eva_stages.core.errors import DamagedError, UnreadableError

Kind = TypeVar("Kind", dict[str, Any], list[Any])
Value = TypeVar("Value")
RECIPE_COMMAND = "eva run RECIPE --run-dir {root}, with the recipe that the run was started with; it writes the file again"
GONE_ERRORS = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
_printed_notices: set[str] = set()


def notice(text: str) -> None:
    """Print a line on standard error, once per process."""
    from eva_stages.core.terminal import note

    if text not in _printed_notices:
        _printed_notices.add(text)
        note(text)


def read_content(path: Path, command: str | None = None) -> bytes:
    """The bytes of a file.

    Raises:
        DamagedError: if there is no such file.
        UnreadableError: if the system does not let us read it.
    """
    try:
        return path.read_bytes()
    except GONE_ERRORS as error:
        raise DamagedError(f"{path} cannot be read: {error.strerror}", command) from error
    except OSError as error:
        raise UnreadableError(path, error) from error


def read_json(path: Path, kind: type[Kind], command: str | None = None) -> Kind:
    """A JSON file.

    Args:
        kind: dict or list, the type of the document.
        command: the command that restores the file; None = the command that created the run, with --repair.

    Raises:
        DamagedError, UnreadableError: as the module says.
    """
    try:
        value = decode_json(read_content(path, command))
    except ValueError as error:
        if isinstance(error, DamagedError):
            raise
        raise DamagedError(f"{path} is damaged: {error}", command) from error
    return _of_kind(value, kind, path, command)


def read_yaml(path: Path, command: str | None = None) -> dict[str, Any]:
    """A YAML file that holds a mapping; see `read_json`."""
    try:
        value = decode_yaml(read_content(path, command).decode("utf-8-sig"))[0]
    except ValueError as error:
        if isinstance(error, DamagedError):
            raise
        raise DamagedError(f"{path} is damaged: {error}", command) from error
    return _of_kind(value, dict, path, command)


def _of_kind(value: Any, kind: type[Kind], path: Path, command: str | None) -> Kind:
    if not isinstance(value, kind):
        raise DamagedError(f"{path} is damaged: it contains a {type(value).__name__}, expected a {kind.__name__}", command)
    return value


def rebuilt(read_file: Callable[[], Value], default: Value, consequence: str) -> Value:
    """The result of `read`; if its file is damaged, `default`, with a notice of the consequence."""
    try:
        return read_file()
    except DamagedError as error:
        notice(f"{error}; {consequence}")
        return default


@contextmanager
def parquet_errors(path: Path) -> Iterator[None]:
    """Turn errors of pyarrow about a parquet file into errors of eva.

    Raises:
        DamagedError, UnreadableError: as the module says.
    """
    try:
        yield
    except GONE_ERRORS as error:
        raise DamagedError(f"{path} cannot be read: {error.strerror or error}") from error
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise UnreadableError(path, error) from error
        raise DamagedError(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from error
