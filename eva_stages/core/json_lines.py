"""The objects of a file of JSON lines or of one JSON list, each with its place; the file is known by its content, plain or gzipped."""

import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from eva_stages.core.decoding import decode_json, short

EXPECTED_CONTENT = "a file holds one object per line, or one list of objects"
_GZIP = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_START = 4096


class Entry(NamedTuple):
    """An object of a file; `number` counts from 1: its line, or its entry in the list."""

    unit: str
    number: int
    value: dict[str, Any]

    @property
    def place(self) -> str:
        return f"{self.unit} {self.number}"


def open_plain(path: Path) -> io.BufferedReader | gzip.GzipFile:
    """A file for reading, decompressed where it is gzipped."""
    with path.open("rb") as stream:
        is_gzip = stream.read(len(_GZIP)) == _GZIP
    return gzip.open(path, "rb") if is_gzip else path.open("rb")


def read_objects(path: Path, unique_keys: bool = False) -> Iterator[Entry]:
    """The objects in order, line by line; blank lines are passed over.

    Args:
        unique_keys: refuse an object that gives a key twice.

    Raises:
        ValueError: with the place and what is wrong there.
        OSError, EOFError, zlib.error: if the file cannot be read.
    """
    with open_plain(path) as stream:
        is_list = stream.read(_START).removeprefix(_BYTE_ORDER_MARK).lstrip()[:1] == b"["
        stream.seek(0)
        if is_list:
            for number, value in enumerate(_decode(stream.read(), "the list", unique_keys), 1):
                yield _entry("entry", number, value)
            return
        for number, line in enumerate(stream, 1):
            if line.removeprefix(_BYTE_ORDER_MARK).strip():
                yield _entry("line", number, _decode(line, f"line {number}", unique_keys))


def _decode(content: bytes, place: str, unique_keys: bool) -> Any:
    try:
        return decode_json(content, unique_keys)
    except ValueError as error:
        start = content[:60].decode("utf-8", "replace").strip()
        raise ValueError(f"{place}: {error}: {start!r}; {EXPECTED_CONTENT}") from error


def _entry(unit: str, number: int, value: Any) -> Entry:
    if not isinstance(value, dict):
        raise ValueError(f"{unit} {number}: {short(value)} is not an object; {EXPECTED_CONTENT}")
    return Entry(unit, number, value)
