"""Texts from data made fit to be looked at: nothing in them moves a cursor, turns the reading direction or fills a page.

Control characters stand as their Unicode pictures, characters that change the direction of what follows as their code in brackets,
lone surrogates and other code points that no encoder takes as U+FFFD. Escaping for HTML is the template's.
"""

import re

PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
DIRECTIONS = (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C)
_MADE_VISIBLE: dict[int, str | int] = {
    **PICTURES,
    **{code: f"[U+{code:04X}]" for code in (*DIRECTIONS, 0x2028, 0x2029, 0xFEFF)},
    **{code: f"[U+{code:04X}]" for code in range(0x80, 0xA0)},
}
_NO_TEXT = re.compile("[\ud800-\udfff\ufffe\uffff]")


def harmless(text: str | None, limit: int) -> str:
    """At most `limit` characters of a text, with a note about the rest; line ends and tabs are kept."""
    if text is None:
        return "(none)"
    kept = _NO_TEXT.sub("\ufffd", text[:limit].replace("\r\n", "\n").translate(_MADE_VISIBLE))
    left = len(text) - limit
    return f"{kept} [... {left:,} more characters]" if left > 0 else kept


def one_line(text: str | None, limit: int) -> str:
    """The same on one line."""
    return " ".join(harmless(text, limit).split())
