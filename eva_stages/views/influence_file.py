"""The one-step influence of sampled prompts of a run, in a file beside its stages.

`RUN/influence/<folder of the training stage>.parquet`: the name has the fingerprint of the training whose policy, pairs and loss the
influence was computed with, so a file of another training is never shown. The file's metadata says how it was computed.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from eva_stages.core.durable import sync
from eva_stages.core.numeric import drawable
from eva_stages.core.ourfiles import parquet_errors
from eva_stages.core.tables import read_table, reward_matrix
from eva_stages.views.history import History

FOLDER = "influence"
FACTS = b"eva"


@dataclass(frozen=True)
class Influence:
    """The influence of prompts, and the rewards of the responses that their pairs were made of."""

    values: np.ndarray
    """Fall of the held-out loss per step on a prompt's pair, shape (prompts,)."""
    rewards: np.ndarray
    """Shape (prompts, n)."""
    facts: dict[str, Any]
    """How it was computed: version, fingerprint (of the training), requested_prompts, held_out_pairs, learning_rate."""


def influence_path(root: Path, training_folder: str) -> Path:
    return root / FOLDER / f"{training_folder}.parquet"


def write_influence(path: Path, ids: list[str], values: list[float], facts: dict[str, Any]) -> None:
    """Write it atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"prompt_id": ids, "influence": values}).replace_schema_metadata({FACTS: json.dumps(facts)})
    partial = path.with_suffix(f".{os.getpid()}.partial")
    pq.write_table(table, partial)
    sync(partial)
    partial.replace(path)


def saved_facts(path: Path) -> dict[str, Any]:
    """How a file was computed; empty where there is no file."""
    if not path.is_file():
        return {}
    with parquet_errors(path):
        facts: dict[str, Any] = json.loads((pq.read_schema(path).metadata or {}).get(FACTS, b"{}"))
    return facts


def read_influence(history: History, iteration: int) -> Influence | None:
    """The influence of an iteration's prompts under its training; None where it was not computed."""
    training, rewards = history.find("train", iteration), history.find("reward", iteration)
    path = influence_path(history.root, training.planned_stage.folder) if training else None
    if path is None or rewards is None or rewards.rows is None or not path.is_file():
        return None
    with parquet_errors(path):
        table = pq.read_table(path)
    reward_rows = read_table(rewards.rows.parent, ["prompt_id", "rewards"])
    places = pc.index_in(table["prompt_id"].combine_chunks(), value_set=reward_rows["prompt_id"].combine_chunks())
    is_scored = places.is_valid()
    matrix = drawable(reward_matrix(reward_rows["rewards"].take(places.filter(is_scored))))
    values = table["influence"].combine_chunks().filter(is_scored).to_numpy(zero_copy_only=False)
    return Influence(values, matrix, saved_facts(path))
