"""Texts from data made fit to be looked at: nothing in them moves a cursor, turns the reading direction or fills a page.

Control characters stand as their Unicode pictures, characters that change the direction of what follows as their code in brackets,
lone surrogates and other code points that no encoder takes as U+FFFD. Escaping for HTML is the template's.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
DIRECTIONS = (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C)
_WITHOUT_PICTURE = (*range(0x80, 0xA0), *DIRECTIONS, 0x2028, 0x2029, 0xFEFF)
_MADE_VISIBLE: dict[int, str | int] = {**PICTURES, **{code: f"[U+{code:04X}]" for code in _WITHOUT_PICTURE}}
_ESCAPES = {code: f"\\u{code:04x}" for code in (0x7F, *_WITHOUT_PICTURE, *range(0xD800, 0xE000))}
_NO_TEXT = re.compile("[\ud800-\udfff\ufffe\uffff]")


def visible(text: str) -> str:
    """A text with what would act on a terminal or cannot be encoded made visible; line ends and tabs are kept."""
    return _NO_TEXT.sub("\ufffd", text.replace("\r\n", "\n").translate(_MADE_VISIBLE))


def harmless(text: str | None, limit: int) -> str:
    """At most `limit` characters of a text, with a note about the rest; line ends and tabs are kept."""
    if text is None:
        return "(none)"
    left = len(text) - limit
    return f"{visible(text[:limit])} [... {left:,} more characters]" if left > 0 else visible(text)


def one_line(text: str | None, limit: int) -> str:
    """The same on one line."""
    return " ".join(harmless(text, limit).split())


def json_text(document: Any) -> str:
    """A document as JSON for people and programs: what would act on a terminal or cannot be encoded is escaped, and a
    number that is not finite is null."""
    return json.dumps(finite_json(document), indent=2, ensure_ascii=False, allow_nan=False).translate(_ESCAPES)


def finite_json(document: Any) -> Any:
    """JSON-like data with null for every number that is not finite."""
    match document:
        case float():
            return document if math.isfinite(document) else None
        case Mapping():
            return {key: finite_json(value) for key, value in document.items()}
        case list() | tuple():
            return [finite_json(value) for value in document]
        case _:
            return document
