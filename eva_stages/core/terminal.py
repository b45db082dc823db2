"""The border to the terminal: what is printed holds no secret, and nothing in it acts on the terminal or is taken for markup."""

import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.segment import Segment

from eva_stages.core.harmless import json_text, visible
from eva_stages.core.redaction import hidden, redact


class Terminal(Console):
    """A console whose texts are plain: control characters are made visible, and brackets and colons mean themselves."""

    def __init__(self, stderr: bool = False, least_width: int = 0, **settings: Any) -> None:
        """`least_width`: columns that the tables need; a narrower terminal wraps them."""
        super().__init__(stderr=stderr, markup=False, emoji=False, **settings)
        self.width = max(self.width, least_width)

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        """The last place where text and the console's own escape sequences are still apart."""
        return super()._render_buffer(segment if segment.control else Segment(visible(segment.text), segment.style) for segment in buffer)


def note(text: str) -> None:
    """Print a line on standard error."""
    print(visible(redact(text)), file=sys.stderr)


def print_text(text: str) -> None:
    """Print text from outside on standard output as it is, but for secrets and what would act on a terminal."""
    print(visible(redact(text)), end="")


def print_json(document: Any) -> None:
    print(json_text(hidden(document)))
