"""Output to the terminal: without secrets, control characters and markup."""

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import IntEnum
from typing import Any

from rich.console import Console
from rich.segment import Segment
from rich.text import Text

from eva_stages.core.harmless import json_text, visible
from eva_stages.core.redaction import hide_in_data, redact

_receiver: ContextVar[Callable[[str], None] | None] = ContextVar("receiver", default=None)
"""Of notes; None: standard error."""


class Verbosity(IntEnum):
    """How much the command prints on standard error."""

    QUIET = 0
    """Warnings and errors."""
    NORMAL = 1
    """Also progress, the start and the end of stages, and what to do next."""
    VERBOSE = 2
    """Also the output of libraries."""


_verbosity = Verbosity.NORMAL


def set_verbosity(level: Verbosity) -> None:
    """Set how much this command prints."""
    global _verbosity
    _verbosity = level


def verbosity() -> Verbosity:
    return _verbosity


class Terminal(Console):
    """A console for plain texts: control characters are visible, and brackets and colons are not markup."""

    def __init__(self, stderr: bool = False, **settings: Any) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False, **settings)

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        """The last method in which texts and the console's own escape sequences are still separate."""
        return super()._render_buffer(segment if segment.control else Segment(visible(segment.text), segment.style) for segment in buffer)


STATE_STYLES = {
    "done": "green",
    "ok": "green",
    "complete": "green",
    "good": "green",
    "error": "bold red",
    "reused": "green",
    "running": "cyan",
    "starting": "cyan",
    "loading": "cyan",
    "resumes": "cyan",
    "failed": "bold red",
    "unfinished": "yellow",
    "interrupted": "yellow",
    "waiting": "yellow",
    "warning": "yellow",
}
"""Colours of states, by their first word; the environment variable NO_COLOR turns all colours off."""


COMMAND_HEADS = ("resume with", "repair with", "next")
"""How lines with a command begin."""
NOTE_STYLES = {"error": "bold red", "warning": "yellow", "next": "bold", "resume with": "bold", "repair with": "bold"}
"""Colours of the first words of lines."""


def state_style(text: str) -> str:
    """The colour of a state such as "done, reused"; empty if it has none."""
    return STATE_STYLES.get(text.partition(" ")[0].strip(",:;"), "")


def styled_line(line: str) -> Text:
    """A line such as "0-train: done, 3.4 s" or "error: ..." with its state, or its first word, in its colour."""
    head, colon, rest = line.partition(":")
    word = rest.split(" ", 2)[1].rstrip(",:;") if rest.startswith(" ") else ""
    return Text.assemble((head + colon, NOTE_STYLES.get(head, "")), rest[:1], (word, state_style(word)), rest[1 + len(word) :])


def note(text: str) -> None:
    """Print lines on standard error, or give them to the receiver of notes.

    On a terminal prose wraps between words, and a command stays in one piece, to be copied.
    """
    if (receiver := _receiver.get()) is not None:
        receiver(visible(redact(text)))
    elif not sys.stderr.isatty():
        print(visible(redact(text)), file=sys.stderr)
    else:
        terminal = Terminal(stderr=True)
        for line in redact(text).split("\n"):
            terminal.print(styled_line(line), soft_wrap=line.partition(":")[0] in COMMAND_HEADS)


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
