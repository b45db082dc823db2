"""Reads texts, finish reasons and tokens from a provider's raw response, from LiteLLM or from the wire.

The raw response is already in the journal, so an error in reading costs nothing. A choice without text is null with the provider's reason,
and final: it is paid for, and the same request would end the same way.
"""

from collections.abc import Callable, Mapping
from typing import Any

from eva_stages.core.reasoning import UNFINISHED_THOUGHT

REASON_CHARACTERS = 80


def raw_choices(response: Any) -> list[Any]:
    """The choices of a raw response, readable or not; empty without any."""
    choices = response.get("choices") if isinstance(response, Mapping) else None
    return choices if isinstance(choices, list) else []


def read_choices(response: Any, logprobs: bool) -> list[dict[str, Any]]:
    """Every choice as `text` (null = none), `reason`, and `logprobs` if requested."""
    return [_choice(choice, logprobs) for choice in raw_choices(response)]


def with_tokens(choices: list[dict[str, Any]], total_tokens: int | None, count: Callable[[str], int]) -> list[dict[str, Any]]:
    """The choices with `tokens` each, which sum to the provider's total.

    Args:
        total_tokens: tokens of all choices; None = unknown, so the tokens of each text are counted.
    """
    if total_tokens is None:
        return [{**choice, "tokens": count(choice["text"]) if choice["text"] else 0} for choice in choices]
    share = total_tokens // max(1, len(choices))
    counts = [share] * (len(choices) - 1) + [total_tokens - share * (len(choices) - 1)]
    return [{**choice, "tokens": tokens} for choice, tokens in zip(choices, counts, strict=False)]


def storable(value: Any, hide: Callable[[str], str]) -> Any:
    """A raw response as JSON data without credentials, and without lone surrogates, which files and tables cannot store."""
    match value:
        case str():
            text = value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            return hide(text)
        case Mapping():
            return {storable(str(key), hide): storable(item, hide) for key, item in value.items()}
        case list() | tuple():
            return [storable(item, hide) for item in value]
        case None | bool() | int() | float():
            return value
        case _:
            return storable(str(value), hide)


def _choice(choice: Any, logprobs: bool) -> dict[str, Any]:
    fields = choice if isinstance(choice, Mapping) else {}
    text = _text(fields.get("message"))
    finish = str(fields.get("finish_reason") or "unknown")[:REASON_CHARACTERS]
    if not text and finish == "length" and _has_thought(fields.get("message")):
        text, finish = None, UNFINISHED_THOUGHT
    is_final = text is not None or finish in ("length", "content_filter", UNFINISHED_THOUGHT)
    reason = finish if is_final else f"no text in the response (finish_reason {finish})"
    entry: dict[str, Any] = {"text": text, "reason": reason}
    if logprobs:
        reported_logprobs = fields.get("logprobs")
        entry["logprobs"] = reported_logprobs.get("content") if isinstance(reported_logprobs, Mapping) else None
    return entry


def _has_thought(message: Any) -> bool:
    """Whether a server returned a thought separately from the text."""
    return isinstance(message, Mapping) and any(message.get(name) for name in ("reasoning_content", "reasoning"))


def _text(message: Any) -> str | None:
    """The text of a message, or the arguments of its function call."""
    if not isinstance(message, Mapping):
        return None
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part["text"] for part in content if isinstance(part, Mapping) and isinstance(part.get("text"), str)]
        return "".join(parts) if parts else None
    try:
        arguments = message["tool_calls"][0]["function"]["arguments"]
    except (KeyError, IndexError, TypeError):
        return None
    return arguments if isinstance(arguments, str) else None
