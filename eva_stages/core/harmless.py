"""Makes texts from data safe to display: they cannot move a cursor, change the reading direction or fill a page.

Control characters are replaced by their Unicode pictures, characters that change the text direction by their code in brackets, and
code points that cannot be encoded (such as lone surrogates) by U+FFFD. Templates escape HTML.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
DIRECTIONS = (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C)
_WITHOUT_PICTURE = (*range(0x80, 0xA0), *DIRECTIONS, 0x2028, 0x2029, 0xFEFF)
_MADE_VISIBLE: dict[int, str | int] = {**PICTURES, **{code: f"[U+{code:04X}]" for code in _WITHOUT_PICTURE}}
_ESCAPES = {code: f"\\u{code:04x}" for code in (0x7F, *_WITHOUT_PICTURE, *range(0xD800, 0xE000))}
_NO_TEXT = re.compile("[\ud800-\udfff\ufffe\uffff]")


def visible(text: str) -> str:
    """A text whose control characters and unencodable characters are visible; line ends and tabs stay."""
    return _NO_TEXT.sub("\ufffd", text.replace("\r\n", "\n").translate(_MADE_VISIBLE))


def harmless(text: str | None, limit: int) -> str:
    """At most `limit` characters of a text, with a note about the rest; line ends and tabs stay."""
    if text is None:
        return "(none)"
    more_characters = len(text) - limit
    return f"{visible(text[:limit])} [... {more_characters:,} more characters]" if more_characters > 0 else visible(text)


def one_line(text: str | None, limit: int) -> str:
    """`harmless` on one line."""
    return " ".join(harmless(text, limit).split())


def json_text(document: Any) -> str:
    """A document as JSON for people and programs: control and unencodable characters are escaped, non-finite numbers are null."""
    return json.dumps(finite_json(document), indent=2, ensure_ascii=False, allow_nan=False).translate(_ESCAPES)


def finite_json(document: Any) -> Any:
    """JSON-like data with null for every non-finite number."""
    return map_leaves(document, lambda value: None if isinstance(value, float) and not math.isfinite(value) else value)


def map_leaves(data: Any, change: Callable[[Any], Any]) -> Any:
    """A copy of nested mappings and lists with every leaf and key changed."""
    match data:
        case Mapping():
            return {change(key): map_leaves(item, change) for key, item in data.items()}
        case list() | tuple():
            return [map_leaves(item, change) for item in data]
        case _:
            return change(data)
