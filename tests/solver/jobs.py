"""Training jobs on tiny models: a policy, a reference that differs from it, pairs with win probabilities."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from transformers import LlamaForCausalLM

from eva_stages.core.fingerprint import tree_digest
from eva_stages.core.rows import SCHEMAS
from eva_stages.core.tables import write_rows
from eva_stages.solver.launching import launch_file
from tests.tiny_models import config, tokenizer

NUMBERS = ["one", "two", "three", "four", "five", "six"]
WORDS = [*NUMBERS, "red", "green", "blue", "yellow", "the", "of", "and", "a", "to", "in"]
BASE: dict[str, Any] = {
    "learning_rate": 1e-3,
    "batch_size": 16,
    "epochs": 1,
    "scheduler": "cosine",
    "optimizer": "adamw_torch",
    "warmup_ratio": 0.1,
    "max_grad_norm": 1.0,
    "max_length": 256,
    "too_long": "drop",
    "dtype": "float32",
    "attention": None,
    "adapter": None,
    "gradient_checkpointing": False,
    "checkpoints_per_epoch": 2,
    "seed": 5,
    "micro_batch_size": 16,
    "precompute_reference": True,
    "liger": False,
    "report_to": [],
    "label": "tiny",
    "system_prompt": None,
    "date": None,
}
LOSSES: dict[str, dict[str, Any]] = {
    "dpo": {"beta": 0.1, "nll_alpha": 0.0},
    "simpo": {"beta": 2.0, "gamma_ratio": 0.5, "nll_alpha": 0.0},
    "orpo": {"beta": 0.1, "nll_alpha": 1.0},
    "sppo": {"beta": 0.05, "nll_alpha": 0.0},
}


def save_models(folder: Path) -> dict[str, str]:
    """A tiny policy and a reference with other weights."""
    words = tokenizer([" ".join(WORDS)])
    folders = {}
    for seed, name in enumerate(("policy", "reference")):
        torch.manual_seed(seed)
        settings = config(words)
        settings.initializer_range = 0.1
        LlamaForCausalLM(settings).save_pretrained(folder / name)
        words.save_pretrained(folder / name)
        folders[name] = str(folder / name)
    return folders


def save_pairs(folder: Path, count: int = 48, words: int = 12) -> str:
    """Pairs of random responses of different lengths, with random win probabilities."""
    rng = np.random.default_rng(0)

    def text() -> str:
        return " ".join(rng.choice(WORDS, rng.integers(1, words)))

    rows = [
        {
            "prompt_id": str(index),
            "prompt": [{"role": "user", "content": text()}],
            "chosen": [{"role": "assistant", "content": text()}],
            "rejected": [{"role": "assistant", "content": text()}],
            "chosen_reward": 1.0,
            "rejected_reward": 0.0,
            "chosen_win_probability": rng.uniform(0.5, 1.0),
            "rejected_win_probability": rng.uniform(0.0, 0.5),
        }
        for index in range(count)
    ]
    write_rows([pa.Table.from_pylist(rows, schema=SCHEMAS["pairs"])], SCHEMAS["pairs"], folder)
    return str(folder)


def job(work: Path, folders: dict[str, str], kind: str, **changes: Any) -> dict[str, Any]:
    """A job in a folder of its own; `loss` in `changes` is laid over the loss's settings here."""
    work.mkdir(exist_ok=True, parents=True)
    loss = {**LOSSES.get(kind, {"beta": 0.1, "nll_alpha": 0.0}), **changes.pop("loss", {})}
    digest = tree_digest(Path(folders["reference"]))
    places = {"work": str(work), "cache": str(work / "cache"), "reference_digest": digest}
    return {**BASE, **folders, **places, "kind": kind, "loss": loss, **changes}


def two_machines(folder: Path) -> str:
    """A launch file for one process on the CPU of each of two machines."""
    path = folder / "two_machines.yaml"
    path.write_text(launch_file("cpu_2").read_text().replace("num_machines: 1", "num_machines: 2"))
    return str(path)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The metric lines of a training; where a resumed attempt repeated steps, the later line counts."""
    steps = {entry["step"]: entry for line in path.read_text().splitlines() for entry in [json.loads(line)]}
    return [steps[step] for step in sorted(steps)]
