"""Schemas of the rows of every artifact, and the ids of prompts.

A prompt is a list of chat messages. Its id is a hash of the normalised messages, so a prompt has the same id in every run. An evolved
prompt refers to its parent and to its seed prompt by id.
"""

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

Message = dict[str, str]

TEXT, NUMBER, COUNT, FLAG = pa.string(), pa.float64(), pa.int32(), pa.bool_()
TEXTS, NUMBERS, COUNTS = pa.list_(TEXT), pa.list_(NUMBER), pa.list_(COUNT)
MESSAGES = pa.list_(pa.struct([("role", TEXT), ("content", TEXT)]))
TOKENS = COUNTS
"""Token ids of a response as sampled, including its end token."""

_ID = {"prompt_id": TEXT}
_FAILURE = {"failure": TEXT}
_GATE_FAILURE = {"reason": TEXT, **_FAILURE, "replies": TEXTS}
_PROMPT = {
    **_ID,
    "messages": MESSAGES,
    **dict.fromkeys(("source", "parent_id", "root_id"), TEXT),
    "generation": COUNT,
    **dict.fromkeys(("mutation", "reference"), TEXT),
}
_RESPONSES = {**_ID, "responses": TEXTS, "finish_reasons": TEXTS, "token_counts": COUNTS, "response_ids": pa.list_(TOKENS)}
_REWARDS = {**_ID, "rewards": NUMBERS, "failures": TEXTS}
_PAIR = {
    **_ID,
    **dict.fromkeys(("prompt", "chosen", "rejected"), MESSAGES),
    **dict.fromkeys(("chosen_reward", "rejected_reward", "chosen_win_probability", "rejected_win_probability"), NUMBER),
    **dict.fromkeys(("chosen_ids", "rejected_ids"), TOKENS),
}

_EVOLUTIONS = {**_PROMPT, "rejected": TEXT, **_FAILURE}
_STEP = {"step": COUNT}
_BUFFER_ENTRY = {"score": NUMBER, "birth": COUNT, "last_use": COUNT}

MESSAGES_OF_ERRORS = ("failures", "failure", "finish_reasons", "reason")
"""Columns with texts of exceptions and of servers."""

SCHEMAS: dict[str, pa.Schema] = {
    name: pa.schema(columns)
    for name, columns in {
        "prompts": _PROMPT,
        "responses": {**_RESPONSES, "generator": TEXT, "seed": pa.int64()},
        "rewards": _REWARDS,
        "referenced_rewards": {**_REWARDS, "reference_source": TEXT, "majority_reference": TEXT},
        "objective_rewards": {**_REWARDS, "objectives": pa.list_(NUMBERS)},
        "pairwise_rewards": {**_REWARDS, "win_probability": NUMBERS, "win_matrix": pa.list_(NUMBERS)},
        "evolutions": _EVOLUTIONS,
        "recorded_evolutions": {**_EVOLUTIONS, "meta_prompt": TEXT, "reply": TEXT, "reply_ids": TOKENS},
        "critiques": {**_ID, "critique": TEXT, **_FAILURE},
        "prompt_scores": {**_ID, "quality": NUMBER, "complexity": NUMBER, **_FAILURE},
        "topics": {**_ID, "topic": TEXT, "topic_score": NUMBER, **_FAILURE},
        "gate_verdicts": {
            **_ID,
            **dict.fromkeys(("length_ratio", "zlib_ratio"), NUMBER),
            **dict.fromkeys(("max_length_ratio", "min_zlib_ratio", "answerable", "relevant", "valid"), FLAG),
            **_GATE_FAILURE,
        },
        "gate_audits": {**_ID, "passed": FLAG, "left_out_by": TEXT, "answerable": FLAG, **_GATE_FAILURE},
        "embeddings": {**_ID, "embedding": pa.list_(pa.float32())},
        "selected": {**_ID, "probability": NUMBER, "draw": COUNT},
        "mixed": {**_PROMPT, "origin": TEXT},
        "uses": {
            **_STEP,
            **_ID,
            "origin": TEXT,
            **{name: _RESPONSES[name] for name in ("responses", "finish_reasons", "token_counts")},
            **{name: _REWARDS[name] for name in ("rewards", "failures")},
            "score": NUMBER,
        },
        "draws": {**_STEP, **_ID, "weight": NUMBER, "probability": NUMBER, "draw": COUNT},
        "buffered": {**_PROMPT, **_BUFFER_ENTRY},
        "buffer_entries": {**_ID, **_BUFFER_ENTRY, "origin": TEXT},
        "online_evolutions": {**_EVOLUTIONS, **_STEP, "inserted_step": COUNT, "fate": TEXT},
        "pairs": _PAIR,
        "creator_pairs": {**_PAIR, "iteration": COUNT},
        "rewrites": {**_ID, "responses": TEXTS, "reason": TEXT, **_FAILURE, "generator": TEXT},
        "rewritten_pairs": {**_PAIR, "rewritten": pa.bool_(), "original_chosen": MESSAGES, "original_reward": NUMBER},
        "questions": {
            **_ID,
            **dict.fromkeys(("question_id", "category"), TEXT),
            "messages": MESSAGES,
            **dict.fromkeys(("turns", "references"), TEXTS),
            "reference": TEXT,
        },
        "answers": {**_RESPONSES, "greedy_responses": TEXTS, "generator": TEXT},
        "answer_rewards": {**_ID, "rewards": NUMBERS, "greedy_rewards": NUMBERS},
        "judgments": {
            **_ID,
            **dict.fromkeys(("question_id", "category", "model", "baseline"), TEXT),
            "game": COUNT,
            **dict.fromkeys(("judge", "template", "prompt", "raw", "verdict"), TEXT),
            **dict.fromkeys(("rating", "outcome"), NUMBER),
            **_FAILURE,
            "attempts": COUNT,
            **dict.fromkeys(("input_tokens", "output_tokens"), pa.int64()),
            "cost": NUMBER,
        },
    }.items()
}


def _column_types() -> dict[str, pa.DataType]:
    """Types of the columns that have one type in all schemas."""
    types: dict[str, set[pa.DataType]] = {}
    for schema in SCHEMAS.values():
        for field in schema:
            types.setdefault(field.name, set()).add(field.type)
    return {name: next(iter(own_types)) for name, own_types in types.items() if len(own_types) == 1}


COLUMN_TYPES = _column_types()


def table_of_rows(rows: Sequence[dict[str, Any]], columns: Iterable[str] = ()) -> pa.Table:
    """Rows as a table. Columns of the schemas have their types also where all values are null; others have those of their values.

    Args:
        columns: of a table without rows.
    """
    names = dict.fromkeys(name for row in rows for name in row) if rows else columns
    return pa.table({name: pa.array([row.get(name) for row in rows], COLUMN_TYPES.get(name)) for name in names})


def normalise(text: str) -> str:
    """Unicode NFC without outer white space; prompts with equal normalised texts are the same prompt."""
    return unicodedata.normalize("NFC", text).strip()


def prompt_id(messages: Sequence[Message]) -> str:
    """24 hex digits of sha256 over the normalised messages."""
    plain = [[message["role"], normalise(message["content"])] for message in messages]
    return hashlib.sha256(json.dumps(plain, ensure_ascii=False).encode()).hexdigest()[:24]


def prompt_row(messages: Sequence[Message], source: str, **lineage: Any) -> dict[str, Any]:
    """A row of the `prompts` schema; without lineage it is a seed prompt, its own root in generation 0.

    `reference` is the reference for verifiers; an evolved prompt is another task: it has its own, from its evolver, or none.
    """
    identity = prompt_id(messages)
    row = {"parent_id": None, "root_id": identity, "generation": 0, "mutation": None, "reference": None, **lineage}
    return {"prompt_id": identity, "messages": list(messages), "source": source, **row}


def last_user_text(messages: Sequence[Message]) -> str:
    """The content of the last user turn, which evolution rewrites."""
    return next(message["content"] for message in reversed(messages) if message["role"] == "user")


def with_last_user_text(messages: Sequence[Message], text: str) -> list[Message]:
    """The same conversation with its last user turn replaced."""
    index = max(i for i, message in enumerate(messages) if message["role"] == "user")
    return [{"role": m["role"], "content": text if i == index else m["content"]} for i, m in enumerate(messages)]


def transcript(messages: Sequence[Message]) -> str:
    """A conversation as text: a single user turn as it is, several turns with their roles."""
    if [message["role"] for message in messages] == ["user"]:
        return messages[0]["content"]
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


def one_message(texts: pa.Array, role: str = "assistant") -> pa.ListArray:
    """Each text as a list of one message; null as an empty text."""
    roles = pa.array([role] * len(texts), pa.string())
    messages = pa.StructArray.from_arrays([roles, pc.fill_null(texts, "")], fields=list(MESSAGES.value_type))
    return pa.ListArray.from_arrays(pa.array(range(len(texts) + 1), pa.int32()), messages)
