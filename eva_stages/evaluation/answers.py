"""Responses in the official tools' files of answers, and their tokens and markdown counts.

There are three formats: FastChat and Arena-Hard of 2024 (`question_id`, `choices`), current Arena-Hard (`uid`, `messages`) and AlpacaEval
(`instruction`, `output`). Counts in the file are used as they are; missing counts are computed from the text, with the tokenizer of the
official tool. The tokenizers come with litellm, so nothing is downloaded.
"""

import re
from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

from eva_stages.core.patches import use_packaged_encodings
from eva_stages.evaluation.judgment_files import Record, text_field

STYLE = ("header_count", "list_count", "bold_count")

_CODE = re.compile(r"```([^`]*)```")
_MARKDOWN = ((r"(?m)^#{1,6}\s",), (r"(?m)^\s*\d+\.\s", r"(?m)^\s*[-*+]\s"), (r"\*\*[^*\n]+\*\*", r"__[^_\n]+__"))
"""Patterns of headers, list items and bold spans; the matches of a group are added up."""


class Answer(NamedTuple):
    """A response to a question; `counts` are token_len and markdown counts as the file stores them."""

    question: str
    model: str
    text: str
    counts: dict[str, Any]
    current: bool
    """Whether the file is in the current Arena-Hard format, which has another tokenizer."""


def parse_answer(record: Record) -> Answer:
    """A row of an answers file."""
    row = record.row
    if "choices" in row:
        return _with_choices(row)
    if "messages" in row:
        last = row["messages"][-1] if isinstance(row["messages"], list) and row["messages"] else None
        content = last.get("content") if isinstance(last, dict) else None
        text = content.get("answer") if isinstance(content, dict) else content
        return Answer(text_field(row, "uid"), text_field(row, "model"), _text(text), _counts(row.get("metadata")), True)
    return Answer(text_field(row, "instruction"), text_field(row, "generator"), _text(row["output"]), {}, False)


def by_model(answers: Iterable[Answer]) -> dict[str, dict[str, Answer]]:
    """Responses by model, then by question; a later row replaces an earlier one, as in the official tools."""
    grouped_answers: dict[str, dict[str, Answer]] = {}
    for answer in answers:
        grouped_answers.setdefault(answer.model, {})[answer.question] = answer
    return grouped_answers


def token_length(answer: Answer) -> int:
    """Tokens of a response: the stored count, else with the encoding of gpt-3.5-turbo (2024) or gpt-4o (current)."""
    stored_count = answer.counts.get("token_len")
    if isinstance(stored_count, int):
        return stored_count
    return len(_encoding("o200k_base" if answer.current else "cl100k_base").encode(answer.text, disallowed_special=()))


def style_counts(answer: Answer) -> tuple[int, int, int, int]:
    """Tokens, headers, list items and bold spans of a response; the last three without code blocks."""
    header, item, strong = (_total(answer.counts.get(name)) for name in STYLE)
    if header is not None and item is not None and strong is not None:
        return token_length(answer), header, item, strong
    plain = answer.text
    for block in _CODE.findall(answer.text):  # as the official tool: the text of a code block is removed everywhere
        plain = plain.replace(block, "")
    headers, items, bold = (sum(len(re.findall(pattern, plain)) for pattern in patterns) for patterns in _MARKDOWN)
    return token_length(answer), headers, items, bold


def _with_choices(row: dict[str, Any]) -> Answer:
    try:
        turns = row["choices"][0]["turns"]
        texts = [turn["content"] if isinstance(turn, dict) else turn for turn in turns]
        first = turns[0] if isinstance(turns[0], dict) else {}
    except (LookupError, TypeError) as error:
        raise ValueError("choices has no turns; expected choices[0].turns") from error
    counts = _counts(row.get("conv_metadata"), **({"token_len": first["token_len"]} if "token_len" in first else {}))
    return Answer(text_field(row, "question_id"), text_field(row, "model_id"), _text("\n".join(map(_text, texts))), counts, False)


def _counts(metadata: Any, **further_counts: Any) -> dict[str, Any]:
    if not isinstance(metadata, dict | None):
        raise ValueError(f"metadata is {str(metadata)[:60]!r}; expected counts by name")
    counts = {**(metadata or {}), **further_counts}
    for name in ("token_len", *STYLE):
        count = counts.get(name)
        parts = count.values() if isinstance(count, dict) else [count] if isinstance(count, int) else []
        if not all(isinstance(part, int | float) and abs(part) < 1e9 for part in parts):
            raise ValueError(f"{name} is {str(count)[:60]!r}; expected a number, or numbers by kind")
    return counts


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"the response is {str(value)[:60]!r}; expected text")
    return value


def _total(count: Any) -> int | None:
    """A stored markdown count: a number, or numbers by kind."""
    if isinstance(count, dict):
        return sum(int(part) for part in count.values())
    return count if isinstance(count, int) else None


@cache
def _encoding(name: str) -> Any:
    use_packaged_encodings()
    import tiktoken

    return tiktoken.get_encoding(name)
