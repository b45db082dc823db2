"""Pairs as token ids, the same for every loss: the prompt as it was rendered for sampling, and the two responses as they were sampled.

A response without ids (a rewritten one) is the tokens of its text and the end of the turn. Pairs over the length limit are dropped or
have their responses cut at the end; a prompt is never cut. The ids are written once per training, by one process, and mapped into memory
by all. Pairs that are dropped or cut are counted.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq
from datasets import Dataset

from eva_stages.core.durable import sync
from eva_stages.core.errors import DataError
from eva_stages.core.ourfiles import read_json
from eva_stages.core.rows import TOKENS
from eva_stages.core.tables import FILE
from eva_stages.models.conversation import Chat

WINS = ("chosen_win_probability", "rejected_win_probability")
REWARDS = ("chosen_reward", "rejected_reward")
FIGURES = (*WINS, *REWARDS)
"""Columns of pairs that some losses read."""
SCHEMA = pa.schema(
    [*((name, TOKENS) for name in ("prompt_ids", "chosen_ids", "rejected_ids")), *((name, pa.float64()) for name in FIGURES)]
)
ROWS = 1024


def fate(lengths: Sequence[int], max_length: int, too_long: str) -> str:
    """The outcome for a pair with these numbers of tokens in prompt, chosen and rejected: pairs, truncated, too_long or empty."""
    prompt, *responses = lengths
    if min(responses) == 0:
        return "empty"
    if prompt + max(responses) <= max_length:
        return "pairs"
    return "truncated" if too_long == "truncate" and prompt < max_length else "too_long"


def tokenize(pairs: Path, chat: Chat, max_length: int, too_long: str, out_file: Path) -> None:
    """Write the ids of a pairs artifact to an Arrow file atomically, and their counts to a JSON file beside it.

    Raises:
        DataError: if no pair remains.
    """
    counts: Counter[str] = Counter(pairs=0, too_long=0, truncated=0, empty=0)
    partial = out_file.with_name(out_file.name + ".partial")
    with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
        for batch in pq.ParquetFile(pairs / FILE).iter_batches(ROWS):
            rows = []
            for row in batch.to_pylist():
                prompt, chosen, rejected = pair_ids(chat, row)
                end = fate([len(prompt), len(chosen), len(rejected)], max_length, too_long)
                counts[end] += 1
                counts["pairs"] += end == "truncated"
                room = max_length - len(prompt)
                if end in ("pairs", "truncated"):
                    rows.append({"prompt_ids": prompt, "chosen_ids": chosen[:room], "rejected_ids": rejected[:room], **_figures(row)})
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
    if counts["pairs"] == 0:
        raise DataError(
            f"none of the {sum(counts.values())} pairs fits into solver.training.max_length = {max_length} tokens ({dict(counts)}); "
            "raise it, or set solver.training.too_long=truncate if the responses are too long"
        )
    out_file.with_name(out_file.name + ".json").write_text(json.dumps(counts), encoding="utf-8")
    sync(partial)
    partial.replace(out_file)


def read_tokens(path: Path) -> tuple[Dataset, dict[str, int]]:
    """The token ids, mapped into memory, and the counts; the other columns only if every pair has them."""
    dataset = Dataset.from_file(str(path))
    incomplete_columns = [name for name in FIGURES if dataset.data.column(name).null_count]
    counts = read_json(path.with_name(path.name + ".json"), dict)
    return dataset.remove_columns(incomplete_columns), counts


def pair_lengths(pairs: Dataset) -> np.ndarray:
    """Tokens of the longer conversation of each pair, to which the shorter one is padded; shape (pairs,)."""
    names = ["prompt_ids", "chosen_ids", "rejected_ids"]
    table = pairs.select_columns(names).with_format("arrow")[:]
    prompts, chosen, rejected = (pc.list_value_length(table[name]).to_numpy() for name in names)
    return prompts + np.maximum(chosen, rejected)


def pair_ids(chat: Chat, row: dict[str, Any]) -> tuple[list[int], list[int], list[int]]:
    """The token ids of a pair: prompt, chosen, rejected."""
    return chat.prompt_ids(row["prompt"]), _response(chat, row, "chosen"), _response(chat, row, "rejected")


def _response(chat: Chat, row: dict[str, Any], side: str) -> list[int]:
    """The ids of one side of a pair: the sampled ones, or those of its text."""
    ids: list[int] | None = row.get(f"{side}_ids")
    return chat.response_ids(row[side][-1]["content"], row["prompt"]) if ids is None else ids


def _figures(row: dict[str, Any]) -> dict[str, float | None]:
    return {name: row[name] for name in FIGURES}
