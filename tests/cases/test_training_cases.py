"""Trainings that fail: they stop, name the cause, and leave nothing that a later stage or attempt would use as a policy."""

import json
import multiprocessing
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from eva_stages.core.durable import write_whole
from eva_stages.core.errors import DataError
from eva_stages.core.fingerprint import tree_digest
from eva_stages.core.stage import load_attribute
from eva_stages.solver.checkpoints import WHOLE, _digests, last_complete_checkpoint
from eva_stages.solver.job import TrainingJob
from eva_stages.solver.train import trainer_target
from tests.solver.jobs import job, read_metrics, save_models, save_pairs

BLOW_UP = 1e30
"""A learning rate that destroys the weights in one step."""
LORA = {"kind": "lora", "rank": 4, "alpha": 8.0, "dropout": 0.0}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("training-cases")
    return {**save_models(root), "pairs": save_pairs(root / "pairs")}


def train(settings: TrainingJob) -> None:
    load_attribute(trainer_target(settings.loss.kind))(settings)


def result(settings: TrainingJob) -> dict[str, Any]:
    return json.loads((settings.work / "result.json").read_text())


def edited_policy(folders: dict[str, str], folder: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> dict[str, str]:
    """The folders with a policy whose weights are edited."""
    shutil.copytree(folders["policy"], folder)
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return {**folders, "policy": str(folder)}


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("dpo", {}),
        ("dpo", {"micro_batch_size": 4}),
        ("simpo", {}),
        ("orpo", {}),
        ("dpo", {"adapter": LORA}),
        ("dpo", {"warmup_ratio": 0.0}),
    ],
)
def test_a_learning_rate_that_is_too_large_stops_the_training_at_its_first_bad_step(
    kind: str, changes: dict[str, Any], folders: dict[str, str], tmp_path: Path
) -> None:
    settings = job(tmp_path, folders, kind, learning_rate=BLOW_UP, checkpoints_per_epoch=3, epochs=4, **changes)
    with pytest.raises(DataError) as error:
        train(settings)
    message = str(error.value)
    assert "training diverged at step " in message and " of 12: " in message and "at learning rate " in message
    assert "Lower solver.training.learning_rate (now 1e+30)" in message and "No policy was saved" in message
    step = int(message.partition("at step ")[2].split()[0])
    assert step == read_metrics(tmp_path / "metrics.jsonl")[-1]["step"] <= 3
    assert not (tmp_path / "model").exists() and not (tmp_path / "result.json").exists()
    for checkpoint in (tmp_path / "checkpoints").glob("checkpoint-*"):
        assert int(checkpoint.name.partition("-")[2]) < step
        assert all(tensor.isfinite().all() for file in checkpoint.glob("*.safetensors") for tensor in load_file(file).values())


def train_as_rank(settings: TrainingJob, rank: int, port: int) -> None:
    """Train as one of two processes; write the error to a file."""
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.update(place, ACCELERATE_USE_CPU="true", OMP_NUM_THREADS="1")
    PartialState(cpu=True)
    try:
        train(settings)
    except DataError as error:
        (settings.work / f"stopped-{rank}").write_text(str(error))
        os._exit(1)


def test_all_processes_stop_at_the_same_step_and_none_waits(folders: dict[str, str], tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["eva_stages.core.preload"])
    settings = job(tmp_path, folders, "dpo", learning_rate=BLOW_UP, micro_batch_size=4)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [context.Process(target=train_as_rank, args=(settings, rank, port)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
        assert rank.exitcode == 1
    message = {(tmp_path / f"stopped-{rank}").read_text() for rank in range(2)}
    assert len(message) == 1 and "training diverged at step 3 of 3" in message.pop()
    assert not (tmp_path / "model").exists()


def test_a_checkpoint_with_weights_that_are_not_finite_is_not_resumed_from(folders: dict[str, str], tmp_path: Path) -> None:
    settings = job(tmp_path, folders, "dpo", checkpoints_per_epoch=3)
    train(settings)
    newest = tmp_path / "checkpoints" / "checkpoint-3"
    tensors = load_file(newest / "model.safetensors")
    tensors["model.norm.weight"][3] = float("inf")
    save_file(tensors, newest / "model.safetensors", metadata={"format": "pt"})
    write_whole(newest / WHOLE, json.dumps(_digests(newest)))
    assert last_complete_checkpoint(tmp_path / "checkpoints") == str(tmp_path / "checkpoints" / "checkpoint-2")


def test_weights_that_were_not_finite_before_training_are_named_as_the_cause(folders: dict[str, str], tmp_path: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = float("nan")

    broken_policy = edited_policy(folders, tmp_path / "broken", spoil)
    with pytest.raises(DataError, match="weights that are not finite before training starts"):
        train(job(tmp_path / "policy", broken_policy, "dpo"))
    reference = {**folders, "reference": broken_policy["policy"]}
    settings = job(tmp_path / "reference", reference, "dpo")
    with pytest.raises(DataError, match="reference policy gives log-probabilities that are not finite for 48 of 48 pairs"):
        train(settings)
    assert not list(settings.cache.rglob("*.parquet"))
    with pytest.raises(DataError, match=r"at step 1 of 3: loss nan.+the learning rate is not the cause"):
        train(job(tmp_path / "reference", reference, "dpo", precompute_reference=False))


def test_a_training_that_changed_no_weight_is_an_error_that_names_the_reason(folders: dict[str, str], tmp_path: Path) -> None:
    only_warm_up = job(tmp_path / "warm-up", folders, "dpo", batch_size=48, micro_batch_size=16)
    with pytest.raises(DataError, match=r"changed no weight.+learning rate was 0 in all of its 1 steps, which are warm-up"):
        train(only_warm_up)
    model = AutoModelForCausalLM.from_pretrained(folders["policy"]).to(torch.bfloat16)
    shutil.copytree(folders["policy"], tmp_path / "half")
    model.save_pretrained(tmp_path / "half")
    half = {**folders, "policy": str(tmp_path / "half")}
    with pytest.raises(DataError, match=r"changed no weight.+too small to change bfloat16 weights"):
        train(job(tmp_path / "small", half, "dpo", learning_rate=1e-12))
    partly = job(tmp_path / "partly", half, "dpo", learning_rate=1e-5)
    train(partly)
    assert 0 < result(partly)["changed_share"] < 1
    whole = job(tmp_path / "whole", folders, "dpo")
    train(whole)
    assert result(whole)["changed_share"] > 0.5
    assert not (tmp_path / "small" / "model").exists() and (tmp_path / "whole" / "model").is_dir()


def test_equal_lora_trainings_write_equal_bytes_in_every_folder(folders: dict[str, str], tmp_path: Path) -> None:
    for name in ("one", "two"):
        folders_of_run = {**folders, "policy": str(shutil.copytree(folders["policy"], tmp_path / name / "policy"))}
        train(
            job(
                tmp_path / name / "work", {**folders_of_run, "reference": folders_of_run["policy"]}, "dpo", adapter=LORA, learning_rate=1e-2
            )
        )
    assert len({tree_digest(tmp_path / name / "work" / "model") for name in ("one", "two")}) == 1
    adapter_config = json.loads((tmp_path / "one" / "work" / "model" / "adapter" / "adapter_config.json").read_text())
    assert adapter_config["r"] == 4 and adapter_config["target_modules"] == sorted(adapter_config["target_modules"])
    assert not any(
        str(tmp_path) in file.read_text() for file in (tmp_path / "one" / "work" / "model").rglob("*.*") if file.suffix in (".json", ".md")
    )
