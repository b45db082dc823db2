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
    closing = _leading_thought(text) or _open_thought(text) or (TAGS[0][1] if opened else None)
    rest = text
    while closing:
        _, closed, rest = rest.partition(closing)
        if not closed:
            return None
        rest = rest.lstrip()
        closing = _leading_thought(rest)
    return rest


def opens_thought(prompt: str) -> bool:
    """Whether a rendered prompt ends with the opening tag of a thought, which the response then has not."""
    return prompt.rstrip().endswith(tuple(opening for opening, _ in TAGS))


def _leading_thought(text: str) -> str | None:
    """The closing tag of a thought that the text begins with."""
    start = text.lstrip()
    return next((closing for opening, closing in TAGS if start.startswith(opening)), None)


def _open_thought(text: str) -> str | None:
    """A closing tag without its opening one."""
    return next((closing for opening, closing in TAGS if closing in text and opening not in text[: text.index(closing)]), None)


def _final_message(text: str) -> str | None:
    """The last message of the channel `final`."""
    answers = list(_ANSWER.finditer(text))
    return _END_OF_MESSAGE.split(text[answers[-1].end() :])[0].strip() if answers else None
