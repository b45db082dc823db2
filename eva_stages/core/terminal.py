"""Output to the terminal: without secrets, control characters and markup."""

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from rich.console import Console
from rich.segment import Segment

from eva_stages.core.harmless import json_text, visible
from eva_stages.core.redaction import hide_in_data, redact

_receiver: ContextVar[Callable[[str], None] | None] = ContextVar("receiver", default=None)
"""Of notes; None: standard error."""


class Terminal(Console):
    """A console for plain texts: control characters are visible, and brackets and colons are not markup."""

    def __init__(self, stderr: bool = False, least_width: int = 0, **settings: Any) -> None:
        """`least_width`: columns that the tables need; a narrower terminal wraps lines."""
        super().__init__(stderr=stderr, markup=False, emoji=False, **settings)
        self.width = max(self.width, least_width)

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        """The last method in which texts and the console's own escape sequences are still separate."""
        return super()._render_buffer(segment if segment.control else Segment(visible(segment.text), segment.style) for segment in buffer)


def note(text: str) -> None:
    """Print a line on standard error, or give it to the receiver of notes."""
    receiver = _receiver.get()
    if receiver is None:
        print(visible(redact(text)), file=sys.stderr)
    else:
        receiver(visible(redact(text)))


@contextmanager
def notes_to(receiver: Callable[[str], None]) -> Iterator[None]:
    """Give the notes of this thread to `receiver` while the block runs."""
    token = _receiver.set(receiver)
    try:
        yield
    finally:
        _receiver.reset(token)


@contextmanager
def notes_as_warnings() -> Iterator[None]:
    """Turn the notes of this thread into Python warnings while the block, or the decorated function, runs."""
    with notes_to(warn):
        yield


def warn(text: str) -> None:
    """A Python warning about a notice of eva."""
    warnings.warn(text, UserWarning, stacklevel=3)


def print_text(text: str) -> None:
    """Print external text on standard output, without secrets and with visible control characters."""
    print(visible(redact(text)), end="")


def print_json(document: Any) -> None:
    print(json_text(hide_in_data(document)))
