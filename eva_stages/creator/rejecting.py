"""Reading an evolver's reply: the prompt in it, or the reason why it cannot be used for training.

The patterns match the ways in which language models miss the task: they repeat the template, refuse, talk about the prompt or respond
to it. They match only at the beginning or the end of a reply, where such phrases occur, because the same words are common in real
prompts ("I can't get this code to run", "Here is my essay"). A phrase that the parent prompt contains too is no reason to reject. The
patterns are measured on real prompts and replies in `tests/creator/test_rejecting.py`. A response without an introduction is not found.
"""

import json
import re
from typing import Any

from eva_stages.core.rows import normalise
from eva_stages.creator.conversations import SURROGATE
from eva_stages.models.task_evolver import IMPOSSIBLE

LEAKS = (
    "given prompt",
    "rewritten prompt",
    "created prompt",
    "prompt rewriter",
    "prompt creator",
    "#prompt",
    "prompt#",
    "response#",
    "critique#",
    "conversation#",
)
"""Words of the meta-prompts."""
# fragments for verbose patterns: spaces are escaped

_UNABLE = r"(?:can\ ?not|can't|could\ not|couldn't|(?:'m|\ am)\ (?:unable|not\ able)\ to|will\ not|won't|must\ decline\ to)"
_REQUESTED_ACTION = (
    r"(?:help|assist|provide|fulfil|fulfill|comply|create|generate|answer|rewrite|evolve|produce|continue|engage|support|complete|process|"
    r"offer|discuss|participate|respond|do\ (?:that|this|so)|in\ good\ conscience)"
)
_TARGET = r"(?:prompt|version|rewrite|revision|variation|instruction|question|task|answer|response|solution)s?"
_CHANGE = r"(?:rewritten|revised|new|evolved|updated|improved|modified|enhanced|created|expanded|reworded|final)"

REFUSAL = re.compile(
    rf"""\W*(?:
        (?:(?:i'm|i\ am|we're|we\ are)\ )?(?:\w+\ )?sorry\b.{{0,60}}?\b(?:but|can't|cannot|unable|not\ able|won't)\b
      | (?:i\ apologi[sz]e|my\ apologies|apologies|unfortunately|regrettably)\b.{{0,40}}?\b(?:i|we|but|as\ an\ ai)\b
      | (?:i|we)\ ?{_UNABLE}\ (?:\w+\ )?{_REQUESTED_ACTION}\b
      | as\ an?\ (?:[a-z]+\ )?(?:ai|artificial\ intelligence|language\ model|assistant|chatbot)
          (?:\ (?:language|model|assistant|chatbot|system|created|developed|trained|designed|focused)[\w\ -]{{0,60}})?,?\ (?:i|my)\b
      | as\ of\ my\ (?:last|latest|knowledge|most\ recent|training)
      | while\ i\ ?{_UNABLE}\b
      | (?:i'm|i\ am)\ (?:just\ |only\ )?an\ ai\b
      | i\ (?:don't|do\ not)\ (?:feel\ comfortable|have\ the\ ability)
      | i\ (?:don't|do\ not)\ understand\ (?:the|your|this)\ (?:instruction|request|prompt|question)
    )""",
    re.VERBOSE | re.DOTALL,
)
CHATTER = re.compile(
    rf"""\W*(?:
        <think>
      | (?:sure|certainly|of\ course)(?:\ thing)?[,!.:]
      | (?:certainly|of\ course)\ here
      | (?:sure|absolutely|okay|ok|alright|got\ it|great|understood|definitely|gladly)[\s,!.:\u2014-]+
          (?:here|below|i'll|i\ will|i'd|let's|let\ me|happy|as\ requested|{_CHANGE}\ )
      | here(?:'s|\ is|\ are)\b[^\n:]{{0,80}}?\b{_TARGET}\b[^\n:.?]{{0,60}}[:\n]
      | here(?:'s|\ is|\ are)\ (?!.*(?:\?|\b(?:please|you|i|my|me)\b))
      | (?:below\ is|below\ are|the\ following\ is|this\ is)\b[^\n:]{{0,60}}?\b{_CHANGE}\b[^\n:]{{0,60}}[:\n]
      | (?:the\ )?{_CHANGE}\ (?:\w+\ )?{_TARGET}\W*(?:is\b|:)
      | (?:answer|response|output|solution)\W*:
      | (?:i'd|i\ would)\ be\ (?:happy|glad|delighted)\ to\b
      | (?:that's|that\ is|what)?\ ?(?:a|an)?\ ?(?:great|good|excellent|interesting|fascinating)\ question\b
    )""",
    re.VERBOSE,
)
CLOSING = re.compile(
    r"(?:(?:i )?hope (?:this|that|it) helps|(?:please )?let me know if (?:you|there)|feel free to (?:ask|reach))[^\n]{0,120}\Z"
)
"""Closing phrases of assistants."""
HEADING = re.compile(r"Prompt#(?:\*\*)?:(?:\*\*)?|^[ \t*#]*#[\w ]+Prompt#[ \t*]*$", re.MULTILINE)
"""The template's heading in a reply: with its colon, or on a separate line; optionally in bold."""
FENCE = re.compile(r"```(?:json)?(.*)```", re.DOTALL | re.IGNORECASE)
NO_PROMPT_AND_REFERENCE = "no_prompt_and_reference"
"""The reply of an evolver that has to return a prompt and its reference has not both."""
QUOTED_TEXT = re.compile(r'"([^"]+)"|\u201c([^\u201c\u201d]+)\u201d')


def read_evolution(reply: str | None) -> str:
    """The evolved prompt in an evolver's reply: the text after its last heading, without surrounding quotation marks."""
    text = HEADING.split(reply or "")[-1].strip()
    quote = QUOTED_TEXT.fullmatch(text)
    return (quote[1] or quote[2]).strip() if quote else text


def read_prompt_and_reference(reply: str | None) -> tuple[str, str | None]:
    """The evolved prompt and its reference in a reply that is one JSON object, which may be in a code fence; ("", None) if it is not.

    The text of a number counts as a text: {"prompt": "...", "reference": 72}. A text with half a character does not; no file can hold it.
    """
    fence = FENCE.fullmatch((reply or "").strip())
    try:
        document = json.loads(
            fence[1] if fence else reply or "null", parse_int=str, parse_float=str, object_pairs_hook=_without_repeated_names
        )
    except (ValueError, RecursionError):
        return "", None
    match document:
        case {"prompt": str() as prompt, "reference": str() as reference} if reference.strip() and not SURROGATE.search(prompt + reference):
            return prompt.strip(), reference.strip()
    return "", None


def _without_repeated_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; ValueError if a name occurs twice, because either value may be meant."""
    document = dict(pairs)
    if len(document) < len(pairs):
        raise ValueError("a name occurs twice")
    return document


def rejection(evolved: str, parent: str, finish_reason: str, max_characters: int, lacks_reference: bool = False) -> str | None:
    """Why an evolution cannot be used; None if it can.

    Args:
        evolved: the text after the last heading of the reply.
        parent: the prompt that was evolved.
        finish_reason: of the reply; `length` means that it is truncated, `impossible_knobs` that there is no such task.
        lacks_reference: whether the reply should have had a reference and has none that can be read.
    """
    if finish_reason == IMPOSSIBLE:
        return IMPOSSIBLE
    if lacks_reference:
        return "truncated" if finish_reason == "length" else NO_PROMPT_AND_REFERENCE
    if not evolved:
        return "empty"
    if finish_reason == "length":
        return "truncated"
    if normalise(evolved) == normalise(parent):
        return "unchanged"
    if reason := misses_the_task(_plain(evolved), _plain(parent)):
        return reason
    return "too_long" if len(evolved) > max_characters else None


def misses_the_task(text: str, parent: str) -> str | None:
    """template_leak, refusal or not_a_prompt, for lower-case texts."""
    if any(leak in text and leak not in parent for leak in LEAKS):
        return "template_leak"
    if REFUSAL.match(text) and not REFUSAL.match(parent):
        return "refusal"
    for pattern in (CHATTER.match, CLOSING.search):
        if pattern(text) and not pattern(parent):
            return "not_a_prompt"
    return None if any(character.isalpha() for character in text) else "not_a_prompt"


def _plain(text: str) -> str:
    """Lower case, with the apostrophes that keyboards have."""
    return text.strip().lower().replace("\u2019", "'").replace("\u2018", "'")
