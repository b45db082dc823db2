"""Separates the thoughts in the text of a reasoning model from the answer.

A thought is at the start of a response, between tags or in a separate channel (gpt-oss). Many chat templates write the opening tag, so
that the response contains only the closing tag. A tag after the start of the answer is part of the answer.
"""

import re

UNFINISHED_THOUGHT = "unfinished_reasoning"
"""Finish reason of a response that ends within its thought."""
CUT_REASONS = ("length", UNFINISHED_THOUGHT)
"""Finish reasons of responses that reached the length limit."""
TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
)
CHANNEL, MESSAGE = "<|channel|>", "<|message|>"
MARKERS = frozenset((CHANNEL, MESSAGE, *(tag for pair in TAGS for tag in pair)))
"""Texts that decoding must preserve, even as special tokens, because they mark thoughts."""
_ANSWER = re.compile(r"<\|channel\|>\s*final\b(?:(?!<\|message\|>).)*<\|message\|>", re.DOTALL)
_END_OF_MESSAGE = re.compile(r"<\|(?:return|end|start|call)\|>")
_UNMARKED_ANSWER = re.compile(r"\s*(?:analysis|commentary)(?=[A-Z\"'(*]).*assistantfinal(?P<answer>.*)", re.DOTALL)
_UNMARKED_START = re.compile(r"\s*analysis(?=[A-Z])")


def answer_of(text: str, in_thought: bool = False) -> str | None:
    """A response without its thoughts; None if it ends within one.

    Args:
        in_thought: the prompt ended with the opening tag of a thought.
    """
    if CHANNEL in text or text.lstrip().startswith(("analysis" + MESSAGE, "commentary" + MESSAGE)):
        return _final_message(text)
    if unmarked_match := _UNMARKED_ANSWER.match(text):  # the rest of channels after special tokens were skipped
        return unmarked_match["answer"].lstrip()
    if _UNMARKED_START.match(text):
        return None
    tags = _leading_thought(text) or _open_thought(text) or (TAGS[0] if in_thought else None)
    rest = text
    while tags:
        place = _end_of_thought(rest, *tags)
        if place is None:
            return None
        rest = rest[place:].lstrip()
        tags = _leading_thought(rest)
    return rest


def opens_thought(prompt: str) -> bool:
    """Whether a rendered prompt ends with the opening tag of a thought, which the response then lacks."""
    return prompt.rstrip().lower().endswith(tuple(opening.lower() for opening, _ in TAGS))


def _leading_thought(text: str) -> tuple[str, str] | None:
    """The tags of a thought at the start of the text, in any case."""
    start = text.lstrip()
    return next((tags for tags in TAGS if start[: len(tags[0])].lower() == tags[0].lower()), None)


def _open_thought(text: str) -> tuple[str, str] | None:
    """The tags of a thought with a closing tag but no opening tag."""
    lower = text.lower()
    places = [(tags, lower.find(tags[1].lower())) for tags in TAGS]
    return next((tags for tags, place in places if place >= 0 and tags[0].lower() not in lower[:place]), None)


def _end_of_thought(text: str, opening: str, closing: str) -> int | None:
    """End of the thought with which the text begins, or in which it begins; None if it does not end.

    Nested thoughts are part of it. If opening and closing tags do not balance, the first closing tag counts.
    """
    depth, first = 0 if _leading_thought(text) else 1, None
    for tag in re.finditer(f"{re.escape(opening)}|(?P<closing>{re.escape(closing)})", text, re.IGNORECASE):
        if tag["closing"] is None:
            depth += 1
            continue
        depth -= 1
        first = tag.end() if first is None else first
        if depth == 0:
            return tag.end()
    return first


def _final_message(text: str) -> str | None:
    """The last message of the channel `final`."""
    answers = list(_ANSWER.finditer(text))
    return _END_OF_MESSAGE.split(text[answers[-1].end() :])[0].strip() if answers else None
