"""Token-budget batches and chat templates: what all local models share on their way to a forward pass.

A batch is as many sequences of about the same length as fit into a number of padded tokens, so that short and long conversations
cost what they hold and not what the longest one holds.
"""

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

from jinja2 import TemplateError

from eva_stages.core.rows import Message


def token_batches(lengths: Sequence[int], budget: int, copies: int = 1) -> Iterator[list[int]]:
    """Indices in batches, longest first, so that a batch that does not fit into memory fails at once.

    Args:
        lengths: tokens of each sequence, room for an answer included.
        budget: padded tokens per batch; a sequence longer than that is a batch of its own.
        copies: sequences that each index stands for.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) + 1) * copies * lengths[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def with_system_prompt(messages: Sequence[Message], system_prompt: str | None) -> list[Message]:
    """The conversation, opened by the system prompt if it has no system message of its own."""
    if system_prompt is None or messages[0]["role"] == "system":
        return list(messages)
    return [{"role": "system", "content": system_prompt}, *messages]


def chat_tokens(tokenizer: Any, messages: Sequence[Message], add_generation_prompt: bool) -> list[int]:
    """Token ids of a conversation by the tokenizer's chat template.

    Templates without a system role (Gemma's) get the system message in front of the first user turn.
    """
    try:
        return _tokens(tokenizer, messages, add_generation_prompt)
    except TemplateError:
        return _tokens(tokenizer, _merged(messages), add_generation_prompt)


def common_prefix(*sequences: Sequence[int]) -> int:
    """Length of what all sequences begin with."""
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*sequences, strict=False)))


def answered_tokens(tokenizer: Any, prompt: list[Message], *answers: list[Message]) -> tuple[list[int], ...]:
    """Token ids of a prompt and of each of its answers, which start where the chat with them leaves the prompt's tokens."""
    asked = chat_tokens(tokenizer, prompt, True)
    whole = [chat_tokens(tokenizer, [*prompt, *answer], False) for answer in answers]
    start = min(common_prefix(asked, ids) for ids in whole)
    return asked[:start], *(ids[start:] for ids in whole)


def template_messages(tokenizer: Any, messages: Sequence[Message]) -> list[Message]:
    """The conversation as the tokenizer's chat template takes it: see `chat_tokens`."""
    try:
        _tokens(tokenizer, messages, True)
    except TemplateError:
        return _merged(messages)
    return list(messages)


def _merged(messages: Sequence[Message]) -> list[Message]:
    """The system message in front of the first user turn."""
    if messages[0]["role"] != "system" or len(messages) < 2:
        return list(messages)
    system, first, *rest = messages
    return [{"role": first["role"], "content": f"{system['content']}\n\n{first['content']}"}, *rest]


def _tokens(tokenizer: Any, messages: Sequence[Message], add_generation_prompt: bool) -> list[int]:
    encoded = tokenizer.apply_chat_template(list(messages), add_generation_prompt=add_generation_prompt, return_dict=True)
    return list(encoded["input_ids"])
