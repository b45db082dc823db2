"""Training jobs on tiny models: a policy, a reference that differs from it, pairs with win probabilities."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from transformers import LlamaForCausalLM

from eva_stages.core.config.solver_config import TrainingRuntime
from eva_stages.core.fingerprint import tree_digest
from eva_stages.core.rows import SCHEMAS
from eva_stages.core.tables import write_rows
from eva_stages.solver.job import TrainingJob
from eva_stages.solver.launch_file import launch_path
from tests.tiny_models import config, tokenizer

NUMBERS = ["one", "two", "three", "four", "five", "six"]
WORDS = [*NUMBERS, "red", "green", "blue", "yellow", "the", "of", "and", "a", "to", "in"]
TRAINING: dict[str, Any] = {
    "learning_rate": 1e-3,
    "batch_size": 16,
    "epochs": 1,
    "max_length": 256,
    "dtype": "float32",
    "gradient_checkpointing": False,
}
LOSSES: dict[str, dict[str, Any]] = {
    "dpo": {"beta": 0.1, "nll_alpha": 0.0},
    "simpo": {"beta": 2.0, "gamma_ratio": 0.5, "nll_alpha": 0.0},
    "orpo": {"beta": 0.1, "nll_alpha": 1.0},
    "sppo": {"beta": 0.05, "nll_alpha": 0.0},
    "custom": {"nll_alpha": 0.0},
    "sibling_rloo": {"beta": 0.1, "nll_alpha": 0.0},
    "supervised": {"nll_alpha": 0.0},
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


def job(work: Path, folders: dict[str, str], kind: str, **changes: Any) -> TrainingJob:
    """A job in its own folder. `changes`: settings of the loss under `loss`, and fields of the job, of `Training` or of its runtime."""
    work.mkdir(exist_ok=True, parents=True)
    loss = {"kind": kind, **LOSSES.get(kind, {"beta": 0.1, "nll_alpha": 0.0}), **changes.pop("loss", {})}
    runtime = {"micro_batch_size": 16, **{name: changes.pop(name) for name in TrainingRuntime.model_fields if name in changes}}
    inputs = {name: Path(folder) for name, folder in folders.items()}
    defaults = {
        "loss_function": None,
        "on_policy": None,
        "seed": 5,
        "system_prompt": None,
        "date": None,
        "cache": work / "cache",
        "label": "tiny",
    }
    own_fields = {name: changes.pop(name) for name in defaults if name in changes}
    training = {**TRAINING, **changes, "runtime": runtime}
    places = {"inputs": inputs, "reference_digest": tree_digest(inputs["reference"]), "work": work}
    return TrainingJob.model_validate({**defaults, **own_fields, "loss": loss, "training": training, **places})


def arguments(job: TrainingJob) -> dict[str, Any]:
    """A job as the arguments with which its stage calls `launching.train`, without `context`."""
    return {
        "loss": job.loss.model_dump(),
        "training": job.training.model_dump(exclude={"runtime"}),
        **job.model_dump(include={"seed", "system_prompt", "date"}),
        "runtime": {"training": job.training.runtime.model_dump(), "cluster": "auto"},
    }


def two_machines(folder: Path) -> str:
    """A launch file for one process on the CPU of each of two machines."""
    path = folder / "two_machines.yaml"
    path.write_text(launch_path("cpu_2").read_text().replace("num_machines: 1", "num_machines: 2"))
    return str(path)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The metric lines of a training; where a resumed attempt repeated steps, the later line counts."""
    steps = {entry["step"]: entry for line in path.read_text().splitlines() for entry in [json.loads(line)]}
    return [steps[step] for step in sorted(steps)]
