"""Conversations as token ids: the one rendering, for sampling, scoring, training, KL and health.

A prompt is rendered with the generation prompt and nothing more. A response is the ids that were sampled; where only its text is known,
the text's ids and the template's end of a turn. Whole chats with a response are never rendered to be trained on: templates strip
thoughts from them, insert empty ones or trim white space, so that they differ from what was sampled.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import TemplateError

from eva_stages.core.reasoning import MARKERS, opens_thought
from eva_stages.core.rows import Message
from eva_stages.models.architecture import read_json

_RESPONSE = "Response7"
"""A text that no template has of its own."""


class SampledResponse(NamedTuple):
    """A response as it was sampled."""

    text: str | None
    """None where the engine gave it up."""
    reason: str
    """stop, length, or why it was given up."""
    ids: list[int]
    """With the end token, if it came to one."""


class Chat:
    """What a tokenizer's chat template makes of conversations.

    Args:
        tokenizer: of `transformers`, with a chat template.
        date: ISO date that templates are given as today's; None = the present day.
        system_prompt: put before conversations that have no system message.
    """

    def __init__(self, tokenizer: Any, date: str | None = None, system_prompt: str | None = None) -> None:
        self.tokenizer = tokenizer
        self._day = datetime.fromisoformat(date) if date else datetime.now()
        self._system_prompt = system_prompt

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """A prompt up to where the response begins.

        Raises:
            TemplateError: if the template refuses the conversation.
        """
        return self._text(with_system_prompt(messages, self._system_prompt), generation_prompt=True)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of `prompt_text`."""
        return self.ids(self.prompt_text(messages))

    def conversation_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a finished conversation as its template renders it, for models that score it.

        Scorers were trained with their template's own date, if it has one; only today's is replaced.
        """
        return self.ids(self.conversation_text(messages))

    def conversation_text(self, messages: Sequence[Message]) -> str:
        """A finished conversation as its template renders it."""
        return self._text(with_system_prompt(messages, self._system_prompt), generation_prompt=False)

    def response_ids(self, text: str, prompt: Sequence[Message] | None = None) -> list[int]:
        """Token ids of a response of which only the text is known, with the end of its turn.

        Args:
            prompt: what it responds to. SentencePiece puts a space before a text that stands alone, which no response begins with.
        """
        ids_alone = self.ids(text + self.turn_end)
        if prompt is None:
            return ids_alone
        prompt_text = self.prompt_text(prompt)
        prompt_ids, ids = self.ids(prompt_text), self.ids(prompt_text + text + self.turn_end)
        # a token that spans the border could not have been sampled
        return ids[len(prompt_ids) :] if ids[: len(prompt_ids)] == prompt_ids else ids_alone

    def ids(self, text: str) -> list[int]:
        """Token ids of rendered text, to which no special tokens are added."""
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    @cached_property
    def turn_end(self) -> str:
        """What the template puts after a response, up to its first special token; the end token where it has none."""
        turns = [{"role": "user", "content": "Question"}, {"role": "assistant", "content": _RESPONSE}]
        try:
            _, response, tail = self._text(turns, generation_prompt=False).rpartition(_RESPONSE)
        except (TemplateError, TypeError):
            response = tail = ""
        tokens = [token.content for token in self.tokenizer.added_tokens_decoder.values() if token.content.strip()]
        places = [(tail.find(token), -len(token), token) for token in tokens if token in tail]
        if not response or not places:
            return self.tokenizer.eos_token or ""
        place, _, token = min(places)
        return tail[:place] + token

    def end_tokens(self, checkpoint: Path, stop: Sequence[str] = ()) -> list[int]:
        """The tokens that end a response: those of the checkpoint's configurations, the tokenizer's, and the template's own.

        Args:
            stop: texts that end a response. One that is a special token is such an end, and appears in no decoded text.
        """
        configured_ends = [value for name in ("generation_config.json", "config.json") for value in _end_tokens(checkpoint / name)]
        template_ends = self.ids(self.turn_end)[-1:]
        stop_tokens = [place for place, token in self._special.items() if token.content in stop and place not in self._markers]
        return sorted(
            {
                token
                for token in (*configured_ends, self.tokenizer.eos_token_id, *template_ends, *stop_tokens)
                if token is not None and token >= 0
            }
        )

    def read(self, row: Sequence[int], ends: Collection[int], stop: Sequence[str] = ()) -> SampledResponse:
        """A response in the ids that an engine returned, which may go on after its end.

        Args:
            ends: tokens that end a response; they are no part of the text.
            stop: texts that end a response and are left out of its text.
        """
        end = next((place for place, token in enumerate(row) if token in ends), None)
        response_ids = list(row if end is None else row[:end])
        text = self.decode(response_ids)
        cut_at = min((place for stop_text in stop if (place := text.find(stop_text)) >= 0), default=None)
        if cut_at is not None:
            return SampledResponse(text[:cut_at], "stop", response_ids[: self._tokens_up_to(response_ids, stop)])
        return SampledResponse(text, "length", response_ids) if end is None else SampledResponse(text, "stop", [*response_ids, row[end]])

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids without special tokens, but for those that mark thoughts."""
        if self._markers.isdisjoint(ids):
            return str(self.tokenizer.decode(ids, skip_special_tokens=True))
        return str(self.tokenizer.decode([token for token in ids if token not in self._special or token in self._markers]))

    def refusal(self, messages: Sequence[Message], is_finished: bool = False) -> str | None:
        """Why the template does not take a prompt, or a finished conversation; None if it does."""
        try:
            self.conversation_text(messages) if is_finished else self.prompt_text(messages)
        except (TemplateError, TypeError, ValueError) as error:  # a set of templates without a default one is a ValueError
            return " ".join(str(error).split()) or type(error).__name__
        return None

    def opens_thought(self, messages: Sequence[Message]) -> bool:
        """Whether responses to a prompt begin within a thought."""
        return opens_thought(self.prompt_text(messages))

    @cached_property
    def _special(self) -> dict[int, Any]:
        return {place: token for place, token in self.tokenizer.added_tokens_decoder.items() if token.special}

    @cached_property
    def _markers(self) -> set[int]:
        return {place for place, token in self._special.items() if token.content in MARKERS}

    def _tokens_up_to(self, ids: list[int], stop: Sequence[str]) -> int:
        """The fewest tokens whose text has a stop text in it."""
        low, high = 1, len(ids)
        while low < high:
            middle = (low + high) // 2
            has_stop = any(stop_text in self.decode(ids[:middle]) for stop_text in stop)
            low, high = (low, middle) if has_stop else (middle + 1, high)
        return low

    def _text(self, messages: Sequence[Message], generation_prompt: bool) -> str:
        """A rendered conversation. Where the template has no system role, or drops it, its text goes before the first user turn."""
        system = messages[0]["content"].strip() if messages[0]["role"] == "system" else None
        if system is None:
            return self._render(messages, generation_prompt)
        try:
            text = self._render(messages, generation_prompt)
        except TemplateError:
            return self._render(_merge_system(messages), generation_prompt)
        if self._drops(messages, system, text, generation_prompt):
            return self._render(_merge_system(messages), generation_prompt)
        return text

    def _drops(self, messages: Sequence[Message], system: str, text: str, generation_prompt: bool) -> bool:
        """Whether a rendered conversation leaves out the system message, which another message may quote."""
        if not any(system in message["content"] for message in messages[1:]):
            return system not in text
        try:
            return bool(system) and text == self._render(messages[1:], generation_prompt)
        except TemplateError:  # it needs the system message, so it reads it
            return False

    def _render(self, messages: Sequence[Message], generation_prompt: bool) -> str:
        date_argument = {"date_string": self._day.strftime("%d %b %Y")} if generation_prompt else {}
        return str(
            self.tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=generation_prompt, strftime_now=self._day.strftime, **date_argument
            )
        )


def with_system_prompt(messages: Sequence[Message], system_prompt: str | None) -> list[Message]:
    """The conversation, opened by the system prompt if it has no system message of its own."""
    if system_prompt is None or messages[0]["role"] == "system":
        return list(messages)
    return [{"role": "system", "content": system_prompt}, *messages]


def has_date(checkpoint: Path) -> bool:
    """Whether what a checkpoint's chat template renders depends on the day."""
    return any(name in template_source(checkpoint) for name in ("strftime_now", "date_string"))


def template_source(checkpoint: Path) -> str:
    """The chat template in a checkpoint's files; empty if there is none."""
    if (checkpoint / "chat_template.jinja").is_file():
        return (checkpoint / "chat_template.jinja").read_text(encoding="utf-8")
    sources = [read_json(checkpoint / name).get("chat_template") for name in ("chat_template.json", "tokenizer_config.json")]
    return next((source if isinstance(source, str) else json.dumps(source) for source in sources if source), "")


def _merge_system(messages: Sequence[Message]) -> list[Message]:
    """The system message in front of the first user turn."""
    system, *rest = messages
    place = next((index for index, message in enumerate(rest) if message["role"] == "user"), None)
    if place is None:
        return list(messages)
    first = {"role": "user", "content": f"{system['content']}\n\n{rest[place]['content']}"}
    return [*rest[:place], first, *rest[place + 1 :]]


def _end_tokens(path: Path) -> Iterable[int]:
    config = read_json(path)
    for section in (config, config.get("text_config") or {}):
        value = section.get("eos_token_id")
        yield from value if isinstance(value, list) else [] if value is None else [value]
