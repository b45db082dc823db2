"""The meaning of a value of a prompt column: chat messages that end in a user turn, or the reason why it cannot be a prompt.

A value may be a text, messages with `role` and `content` (a text, or parts that are texts), such parts alone, and ShareGPT's turns with
`from` and `value`. A ShareGPT record is a complete dialogue: the turns after the user's last one are its response and are left out.
Elsewhere a last turn that is not the user's is a reason to leave the row out. Nothing else is guessed.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from eva_stages.core.decoding import decode_json
from eva_stages.core.rows import Message

SHAREGPT_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "system": "system"}
ROLES = ("system", "user", "assistant")
TOOL_ROLES = ("tool", "function", "function_call", "function_response", "observation", "ipython", "tool_call", "tool_response")
EMPTY = "null_or_empty"
MESSAGES_AS_TEXT = re.compile(r"""\s*\[\s*\{\s*['"](role|from|content|value)['"]\s*:""")
SURROGATE = re.compile("[\ud800-\udfff]")


class UnusableError(ValueError):
    """A value that is no prompt; its text is the reason, one word for each kind, as it is counted."""


def conversation(value: Any) -> Sequence[Message]:
    """A value as chat messages.

    Raises:
        UnusableError: if it is no prompt.
    """
    if isinstance(value, str) and MESSAGES_AS_TEXT.match(value):
        value = _parse_messages(value)
    if value is None or value in ("", [], {}) or value != value:
        raise UnusableError(EMPTY)
    if isinstance(value, str):
        return [{"role": "user", "content": _text(value)}]
    if not isinstance(value, list):
        raise UnusableError("dict" if isinstance(value, dict) else "truth_value" if isinstance(value, bool) else "number_or_other_value")
    kinds = {type(entry) for entry in value}
    if kinds != {dict}:
        only_kind = next(iter(kinds)) if len(kinds) == 1 else None
        raise UnusableError({str: "list_of_texts", list: "nested_list", type(None): EMPTY}.get(only_kind or object, "mixed_list"))
    if all("type" in entry and "role" not in entry for entry in value):
        return [{"role": "user", "content": _content(value)}]
    if all("from" in entry and "role" not in entry for entry in value):
        messages = [_message(SHAREGPT_ROLES.get(_name(entry["from"]), _name(entry["from"])), entry.get("value")) for entry in value]
        while messages and messages[-1]["role"] == "assistant":
            messages.pop()
    else:
        messages = [_message(_name(entry.get("role")), entry.get("content")) for entry in value]
    if not messages or messages[-1]["role"] != "user":
        raise UnusableError("last_turn_not_of_user")
    return messages


def _parse_messages(text: str) -> Any:
    """Chat messages that are written as JSON, as in a CSV file."""
    try:
        return decode_json(text)
    except ValueError as error:
        raise UnusableError("messages_as_text") from error


def _name(role: Any) -> str:
    return role if isinstance(role, str) else ""


def _message(role: str, content: Any) -> Message:
    if role in TOOL_ROLES:
        raise UnusableError("tool_turn")
    if role not in ROLES:
        raise UnusableError("unknown_role")
    return {"role": role, "content": _content(content)}


def _content(content: Any) -> str:
    """The text of a message, given as such or in parts."""
    if isinstance(content, list):
        if not all(isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str) for part in content):
            raise UnusableError("part_that_is_no_text")
        content = "".join(part["text"] for part in content)
    if content is not None and not isinstance(content, str):
        raise UnusableError("content_that_is_no_text")
    return _text(content or "")


def _text(text: str) -> str:
    if not text.strip():
        raise UnusableError(EMPTY)
    if SURROGATE.search(text):
        raise UnusableError("half_a_character")
    return text


def reference_text(reference: Any) -> str | None:
    """What a verifier checks against, as a text.

    Raises:
        UnusableError: if it holds half a character.
    """
    if reference is None or reference != reference:  # pandas writes a missing value as NaN
        return None
    is_json = isinstance(reference, bool | int | float | list | dict)
    text = json.dumps(reference, ensure_ascii=False, default=str) if is_json else str(reference)  # a text, a date, a time, a decimal
    if SURROGATE.search(text):
        raise UnusableError("half_a_character")
    return text
