"""What the rows of every artifact look like, and how a prompt gets its id.

A prompt is a list of chat messages. Its id is a hash of the normalised messages, so the same prompt has the same id in every
run, and an evolved prompt points to its parent and to the seed it grew from by id.
"""

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

Message = dict[str, str]

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
TOKENS = pa.list_(pa.int32())
"""Token ids of a response as it was sampled, with the end token if it came to one."""

PROMPT_FIELDS = [
    ("prompt_id", pa.string()),
    ("messages", MESSAGES),
    ("source", pa.string()),
    ("parent_id", pa.string()),
    ("root_id", pa.string()),
    ("generation", pa.int32()),
    ("mutation", pa.string()),
    ("reference", pa.string()),
]

REWARD_FIELDS = [("prompt_id", pa.string()), ("rewards", pa.list_(pa.float64())), ("failures", pa.list_(pa.string()))]

MESSAGES_OF_ERRORS = ("failures", "failure", "finish_reasons", "reason")
"""Columns that eva fills with the words of exceptions and of servers."""

SCHEMAS: dict[str, pa.Schema] = {
    "prompts": pa.schema(PROMPT_FIELDS),
    "responses": pa.schema(
        [
            ("prompt_id", pa.string()),
            ("responses", pa.list_(pa.string())),
            ("finish_reasons", pa.list_(pa.string())),
            ("token_counts", pa.list_(pa.int32())),
            ("response_ids", pa.list_(TOKENS)),
            ("generator", pa.string()),
            ("seed", pa.int64()),
        ]
    ),
    "rewards": pa.schema(REWARD_FIELDS),
    "objective_rewards": pa.schema([*REWARD_FIELDS, ("objectives", pa.list_(pa.list_(pa.float64())))]),
    "pairwise_rewards": pa.schema(
        [*REWARD_FIELDS, ("win_probability", pa.list_(pa.float64())), ("win_matrix", pa.list_(pa.list_(pa.float64())))]
    ),
    "evolutions": pa.schema([*PROMPT_FIELDS, ("rejected", pa.string()), ("failure", pa.string())]),
    "critiques": pa.schema([("prompt_id", pa.string()), ("critique", pa.string()), ("failure", pa.string())]),
    "prompt_scores": pa.schema(
        [("prompt_id", pa.string()), ("quality", pa.float64()), ("complexity", pa.float64()), ("failure", pa.string())]
    ),
    "topics": pa.schema([("prompt_id", pa.string()), ("topic", pa.string()), ("topic_score", pa.float64()), ("failure", pa.string())]),
    "embeddings": pa.schema([("prompt_id", pa.string()), ("embedding", pa.list_(pa.float32()))]),
    "selected": pa.schema([("prompt_id", pa.string()), ("probability", pa.float64()), ("draw", pa.int32())]),
    "mixed": pa.schema([*PROMPT_FIELDS, ("origin", pa.string())]),
    "pairs": pa.schema(
        [
            ("prompt_id", pa.string()),
            ("prompt", MESSAGES),
            ("chosen", MESSAGES),
            ("rejected", MESSAGES),
            ("chosen_reward", pa.float64()),
            ("rejected_reward", pa.float64()),
            ("chosen_win_probability", pa.float64()),
            ("rejected_win_probability", pa.float64()),
            ("chosen_ids", TOKENS),
            ("rejected_ids", TOKENS),
        ]
    ),
    "questions": pa.schema(
        [
            ("prompt_id", pa.string()),
            ("question_id", pa.string()),
            ("category", pa.string()),
            ("messages", MESSAGES),
            ("turns", pa.list_(pa.string())),
            ("references", pa.list_(pa.string())),
            ("reference", pa.string()),
        ]
    ),
    "answers": pa.schema(
        [
            ("prompt_id", pa.string()),
            ("responses", pa.list_(pa.string())),
            ("finish_reasons", pa.list_(pa.string())),
            ("token_counts", pa.list_(pa.int32())),
            ("response_ids", pa.list_(TOKENS)),
            ("greedy_responses", pa.list_(pa.string())),
            ("generator", pa.string()),
        ]
    ),
    "answer_rewards": pa.schema(
        [("prompt_id", pa.string()), ("rewards", pa.list_(pa.float64())), ("greedy_rewards", pa.list_(pa.float64()))]
    ),
    "judgments": pa.schema(
        [
            ("prompt_id", pa.string()),
            ("question_id", pa.string()),
            ("category", pa.string()),
            ("model", pa.string()),
            ("baseline", pa.string()),
            ("game", pa.int32()),
            ("judge", pa.string()),
            ("template", pa.string()),
            ("prompt", pa.string()),
            ("raw", pa.string()),
            ("verdict", pa.string()),
            ("rating", pa.float64()),
            ("outcome", pa.float64()),
            ("failure", pa.string()),
            ("attempts", pa.int32()),
            ("input_tokens", pa.int64()),
            ("output_tokens", pa.int64()),
            ("cost", pa.float64()),
        ]
    ),
}

SCHEMAS["rewrites"] = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("responses", pa.list_(pa.string())),
        ("reason", pa.string()),
        ("failure", pa.string()),
        ("generator", pa.string()),
    ]
)
SCHEMAS["rewritten_pairs"] = pa.schema(
    [*SCHEMAS["pairs"], ("rewritten", pa.bool_()), ("original_chosen", MESSAGES), ("original_reward", pa.float64())]
)


def normalise(text: str) -> str:
    """Unicode NFC with outer white space removed: what makes two prompts the same."""
    return unicodedata.normalize("NFC", text).strip()


def prompt_id(messages: Sequence[Message]) -> str:
    """24 hex digits of sha256 over the normalised messages."""
    plain = [[message["role"], normalise(message["content"])] for message in messages]
    return hashlib.sha256(json.dumps(plain, ensure_ascii=False).encode()).hexdigest()[:24]


def prompt_row(messages: Sequence[Message], source: str, **lineage: Any) -> dict[str, Any]:
    """A row of the `prompts` schema; without lineage it is a seed prompt, its own root in generation 0.

    `reference` is what verifiers check answers against; an evolved prompt is another task and has none.
    """
    identity = prompt_id(messages)
    row = {"parent_id": None, "root_id": identity, "generation": 0, "mutation": None, "reference": None, **lineage}
    return {"prompt_id": identity, "messages": list(messages), "source": source, **row}


def last_user_text(messages: Sequence[Message]) -> str:
    """The content of the last user turn, which is what evolves."""
    return next(message["content"] for message in reversed(messages) if message["role"] == "user")


def with_last_user_text(messages: Sequence[Message], text: str) -> list[Message]:
    """The same conversation with its last user turn replaced."""
    index = max(i for i, message in enumerate(messages) if message["role"] == "user")
    return [{"role": m["role"], "content": text if i == index else m["content"]} for i, m in enumerate(messages)]
