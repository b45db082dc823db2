"""Conversations as token ids: one rendering for sampling, scoring, training, KL and health.

A prompt is rendered with the generation prompt and nothing more. A response is its sampled ids or, if only its text is known, the ids of
the text and of the template's end of turn. Training never renders a complete chat: templates strip thoughts, insert empty thoughts or
trim white space, so that the result differs from the sampled tokens.
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
"""A text that no template contains."""


class SampledResponse(NamedTuple):
    """A response with its sampled ids."""

    text: str | None
    """None if the engine aborted it."""
    reason: str
    """stop, length, or why the engine aborted it."""
    ids: list[int]
    """Including the end token, if there is one."""


class Chat:
    """Renders conversations by a tokenizer's chat template.

    Args:
        tokenizer: of `transformers`, with a chat template.
        date: ISO date that templates receive as today's; None = the current day.
        system_prompt: prepended to conversations without a system message.
    """

    def __init__(self, tokenizer: Any, date: str | None = None, system_prompt: str | None = None) -> None:
        self.tokenizer = tokenizer
        self._day = datetime.fromisoformat(date) if date else datetime.now()
        self._system_prompt = system_prompt

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """A prompt up to the start of the response.

        Raises:
            TemplateError: if the template rejects the conversation.
        """
        return self._text(with_system_prompt(messages, self._system_prompt), generation_prompt=True)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of `prompt_text`."""
        return self.ids(self.prompt_text(messages))

    def conversation_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a finished conversation, for models that score it.

        Scorers were trained with the fixed date of their template, if it has one; only today's date is replaced.
        """
        return self.ids(self.conversation_text(messages))

    def conversation_text(self, messages: Sequence[Message]) -> str:
        """A finished conversation, rendered by the template."""
        return self._text(with_system_prompt(messages, self._system_prompt), generation_prompt=False)

    def response_ids(self, text: str, prompt: Sequence[Message] | None = None) -> list[int]:
        """Token ids of a response of which only the text is known, with the end of its turn.

        Args:
            prompt: the prompt of the response. Without it, SentencePiece prepends a space, with which no response begins.
        """
        ids_alone = self.ids(text + self.turn_end)
        if prompt is None:
            return ids_alone
        prompt_text = self.prompt_text(prompt)
        prompt_ids, ids = self.ids(prompt_text), self.ids(prompt_text + text + self.turn_end)
        # a token that spans prompt and response cannot have been sampled
        return ids[len(prompt_ids) :] if ids[: len(prompt_ids)] == prompt_ids else ids_alone

    def ids(self, text: str) -> list[int]:
        """Token ids of rendered text, without adding special tokens."""
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    @cached_property
    def turn_end(self) -> str:
        """The template's text after a response, up to its first special token; the end token if there is none."""
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
        """The tokens that end a response: from the checkpoint's configurations, the tokenizer and the template.

        Args:
            stop: texts that end a response. Special tokens among them are end tokens, because they appear in no decoded text.
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
        """The response in the ids that an engine returned; ids after its end are ignored.

        Args:
            ends: tokens that end a response; they are not part of the text.
            stop: texts that end a response; they are not part of the text.
        """
        end = next((place for place, token in enumerate(row) if token in ends), None)
        response_ids = list(row if end is None else row[:end])
        text = self.decode(response_ids)
        stop_place = min((place for stop_text in stop if (place := text.find(stop_text)) >= 0), default=None)
        if stop_place is not None:
            return SampledResponse(text[:stop_place], "stop", response_ids[: self._tokens_up_to(response_ids, stop)])
        return SampledResponse(text, "length", response_ids) if end is None else SampledResponse(text, "stop", [*response_ids, row[end]])

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids without special tokens, except those that mark thoughts."""
        if self._markers.isdisjoint(ids):
            return str(self.tokenizer.decode(ids, skip_special_tokens=True))
        return str(self.tokenizer.decode([token for token in ids if token not in self._special or token in self._markers]))

    def refusal(self, messages: Sequence[Message], is_finished: bool = False) -> str | None:
        """Why the template rejects a prompt or a finished conversation; None if it accepts it."""
        try:
            self.conversation_text(messages) if is_finished else self.prompt_text(messages)
        except (TemplateError, TypeError, ValueError) as error:  # ValueError: a set of templates without a default
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
        """The smallest number of tokens whose text contains a stop text."""
        low, high = 1, len(ids)
        while low < high:
            middle = (low + high) // 2
            has_stop = any(stop_text in self.decode(ids[:middle]) for stop_text in stop)
            low, high = (low, middle) if has_stop else (middle + 1, high)
        return low

    def _text(self, messages: Sequence[Message], generation_prompt: bool) -> str:
        """A rendered conversation. If the template has no system role, or drops it, the system text precedes the first user turn."""
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
        """Whether a rendered conversation lacks the system message; another message may quote it."""
        if not any(system in message["content"] for message in messages[1:]):
            return system not in text
        try:
            return bool(system) and text == self._render(messages[1:], generation_prompt)
        except TemplateError:  # a template that requires the system message renders it
            return False

    def _render(self, messages: Sequence[Message], generation_prompt: bool) -> str:
        date_argument = {"date_string": self._day.strftime("%d %b %Y")} if generation_prompt else {}
        return str(
            self.tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=generation_prompt, strftime_now=self._day.strftime, **date_argument
            )
        )


def with_system_prompt(messages: Sequence[Message], system_prompt: str | None) -> list[Message]:
    """The conversation, with the system prompt prepended if it has no system message."""
    if system_prompt is None or messages[0]["role"] == "system":
        return list(messages)
    return [{"role": "system", "content": system_prompt}, *messages]


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
