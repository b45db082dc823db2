"""The real TRL trainer on the shipped policy, started by the real accelerate launcher."""

import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from eva_stages.solver.launching import launch_file, read_metrics

POLICY = str(resources.files("eva_stages.microworld") / "base_policy")
JOB = {
    "kind": "dpo",
    "loss": {"beta": 0.1, "nll_alpha": 0.0},
    "learning_rate": 1e-3,
    "batch_size": 8,
    "epochs": 2,
    "scheduler": "cosine",
    "optimizer": "adamw_torch",
    "warmup_ratio": 0.1,
    "max_grad_norm": 1.0,
    "max_length": 128,
    "dtype": "float32",
    "gradient_checkpointing": False,
    "checkpoints_per_epoch": 4,
    "seed": 5,
    "micro_batch_size": 8,
    "policy": POLICY,
    "reference": POLICY,
}
Train = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def train(stage_folder: Callable[[str], Path]) -> Train:
    """Run the training entry on the tiny run's pairs."""

    def run(work: Path, **changes: object) -> subprocess.CompletedProcess[str]:
        work.mkdir(exist_ok=True)
        job = {
            **JOB,
            "launcher": os.getpid(),
            "host": socket.gethostname(),
            "pairs": str(stage_folder("0-pair")),
            "work": str(work),
            **changes,
        }
        (work / "job.json").write_text(json.dumps(job))
        module = ["-m", "eva_stages.solver.training", str(work / "job.json")]
        launch = ["-m", "accelerate.commands.launch", "--config_file", str(launch_file("cpu"))]
        root = Path(__file__).parents[2]
        return subprocess.run([sys.executable, *launch, *module], capture_output=True, text=True, cwd=root, check=False)

    return run


def weights(work: Path) -> dict[str, torch.Tensor]:
    return load_file(work / "model" / "model.safetensors")


def test_dpo_starts_at_ln_2_and_resuming_ends_where_an_unbroken_training_ends(train: Train, tmp_path: Path) -> None:
    done = train(tmp_path / "a")
    assert done.returncode == 0, done.stderr
    log = read_metrics(tmp_path / "a" / "metrics.jsonl")
    losses = [entry for entry in log if "loss" in entry]
    assert losses[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert losses[0]["rewards/margins"] == pytest.approx(0, abs=1e-4)
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    assert result["counts"]["steps"] == log[-1]["total_steps"] == losses[-1]["step"]

    # the same from a checkpoint in the middle, after the newest one was cut off while it was written
    broken = tmp_path / "b"
    (broken / "checkpoints").mkdir(parents=True)
    checkpoints = sorted((tmp_path / "a" / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for path in checkpoints:
        path.rename(broken / "checkpoints" / path.name)
    (broken / "checkpoints" / checkpoints[-1].name / "trainer_state.json").write_text('{"epoch": 1')
    done = train(broken)
    assert done.returncode == 0, done.stderr
    assert "is not whole; going back to the one before" in done.stdout
    first_step = read_metrics(broken / "metrics.jsonl")[0]["step"]
    assert first_step == int(checkpoints[-2].name.split("-")[1]) + 1
    assert json.loads((broken / "result.json").read_text())["counts"]["steps"] == result["counts"]["steps"]
    for name, value in weights(tmp_path / "a").items():
        assert torch.allclose(weights(broken)[name], value, atol=1e-6), name


def test_the_nll_term_is_added_per_response(train: Train, tmp_path: Path) -> None:
    done = train(tmp_path / "a", loss={"beta": 0.1, "nll_alpha": 2.0}, epochs=1)
    assert done.returncode == 0, done.stderr
    first = read_metrics(tmp_path / "a" / "metrics.jsonl")[0]
    assert first["loss"] == pytest.approx(math.log(2) + 2.0 * first["nll"], abs=1e-3)
    assert first["nll"] > 0


def test_pairs_that_do_not_fit_are_left_out_and_counted_and_none_left_is_an_error(train: Train, tmp_path: Path) -> None:
    done = train(tmp_path / "a", max_length=18, epochs=1)
    assert done.returncode == 0, done.stderr
    counts = json.loads((tmp_path / "a" / "result.json").read_text())["counts"]
    assert counts["too_long"] > 0 and counts["pairs"] > 0
    done = train(tmp_path / "b", max_length=8)
    assert done.returncode != 0 and "fits into solver.training.max_length = 8 tokens" in done.stderr


def test_a_metrics_file_cut_off_by_a_kill_is_read_and_repeated_steps_count_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 3}\n{"step": 2, "loss": 2}\n{"step": 2, "loss": 1}\n{"step": 3, "lo')
    assert [(entry["step"], entry["loss"]) for entry in read_metrics(path)] == [(1, 3), (2, 1)]
