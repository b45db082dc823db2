"""Thoughts in the text of a model that reasons: where they end and the answer begins.

A thought stands at the start of a response, between tags, or in a channel of its own (gpt-oss). Many chat templates write the opening
tag themselves, so that the text of the response has only the closing one. A tag further on is part of the answer.
"""

import re

UNFINISHED = "unfinished_reasoning"
"""Finish reason of a response that ends within its thought."""
CUT = ("length", UNFINISHED)
"""Finish reasons of responses that did not come to an end within the length limit."""
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
"""Texts that have to survive decoding, special tokens or not, for a thought to be found."""
_ANSWER = re.compile(r"<\|channel\|>\s*final\b(?:(?!<\|message\|>).)*<\|message\|>", re.DOTALL)
_END_OF_MESSAGE = re.compile(r"<\|(?:return|end|start|call)\|>")
_UNMARKED = re.compile(r"\s*(?:analysis|commentary)(?=[A-Z\"'(*]).*assistantfinal(?P<answer>.*)", re.DOTALL)
_UNMARKED_THOUGHT = re.compile(r"\s*analysis(?=[A-Z])")


def answer_of(text: str, opened: bool = False) -> str | None:
    """A response without its thoughts; None if it ends within one.

    Args:
        opened: the prompt ended with the opening tag of a thought.
    """
    if CHANNEL in text or text.lstrip().startswith(("analysis" + MESSAGE, "commentary" + MESSAGE)):
        return _final_message(text)
    if unmarked := _UNMARKED.match(text):  # what is left of channels where special tokens were skipped
        return unmarked["answer"].lstrip()
    if _UNMARKED_THOUGHT.match(text):
        return None
    tags = _leading_thought(text) or _open_thought(text) or (TAGS[0] if opened else None)
    rest = text
    while tags:
        place = _end_of_thought(rest, *tags)
        if place is None:
            return None
        rest = rest[place:].lstrip()
        tags = _leading_thought(rest)
    return rest


def opens_thought(prompt: str) -> bool:
    """Whether a rendered prompt ends with the opening tag of a thought, which the response then has not."""
    return prompt.rstrip().lower().endswith(tuple(opening.lower() for opening, _ in TAGS))


def _leading_thought(text: str) -> tuple[str, str] | None:
    """The tags of a thought that the text begins with, in capitals or not."""
    start = text.lstrip()
    return next((tags for tags in TAGS if start[: len(tags[0])].lower() == tags[0].lower()), None)


def _open_thought(text: str) -> tuple[str, str] | None:
    """The tags of a thought that has a closing one without its opening one."""
    lower = text.lower()
    known = [(tags, lower.find(tags[1].lower())) for tags in TAGS]
    return next((tags for tags, place in known if place >= 0 and tags[0].lower() not in lower[:place]), None)


def _end_of_thought(text: str, opening: str, closing: str) -> int | None:
    """Where the thought ends that the text begins with or within; None if it does not.

    Thoughts within the thought are part of it. Where opening and closing tags do not balance, the first closing one counts.
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
