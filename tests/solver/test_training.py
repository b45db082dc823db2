"""Whole trainings with TRL's real trainers on tiny models: equal settings give equal weights, however the work is cut up."""

import contextlib
import dataclasses
import gc
import itertools
import json
import math
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import torch
from peft import PeftModel
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from eva_stages.core.devices import read_model
from eva_stages.core.errors import ConfigError, DamagedError, DataError, StageError
from eva_stages.core.fingerprint import tree_digest
from eva_stages.core.patches import single_process_environment
from eva_stages.core.progress import STARTING, Reporter, Task
from eva_stages.core.runner import Context
from eva_stages.core.stage import load_attribute
from eva_stages.core.terminal import Terminal
from eva_stages.models.conversation import Chat
from eva_stages.models.loading import load_tokenizer
from eva_stages.solver import launching, references
from eva_stages.solver.checkpoints import last_complete_checkpoint
from eva_stages.solver.fitting import PaddedSamples
from eva_stages.solver.job import TrainingJob, read_job
from eva_stages.solver.launch_file import launch_path, read_launch_file
from eva_stages.solver.launching import last_entry, same_vocabulary
from eva_stages.solver.machine import LAUNCHER
from eva_stages.solver.preference import make_trainer
from eva_stages.solver.tokens import read_tokens, tokenize
from eva_stages.solver.train import trainer_target
from tests.solver.jobs import arguments, job, read_metrics, save_models, save_pairs, two_machines
from tests.solver.srun import install as install_srun

ROOT = Path(__file__).parents[2]
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("training")
    return {**save_models(root), "pairs": save_pairs(root / "pairs")}


def train(settings: TrainingJob) -> Weights:
    """Run a job in this process; returns the weights."""
    load_attribute(trainer_target(settings.loss.kind))(settings)
    return weights(settings)


def weights(settings: TrainingJob) -> Weights:
    return load_file(settings.work / "model" / "model.safetensors")


def log(settings: TrainingJob) -> list[dict[str, Any]]:
    return read_metrics(settings.work / "metrics.jsonl")


def counts(settings: TrainingJob) -> dict[str, int]:
    return json.loads((settings.work / "result.json").read_text())["counts"]


def distance(weights_of_one: Weights, other_weights: Weights) -> float:
    assert set(weights_of_one) == set(other_weights)
    return max((weights_of_one[name].float() - other_weights[name].float()).abs().max().item() for name in weights_of_one)


def distance_moved(settings: TrainingJob) -> float:
    """How far training has taken the weights."""
    return distance(weights(settings), load_file(settings.policy / "model.safetensors"))


@pytest.mark.parametrize(
    ("kind", "loss", "first"),
    [
        ("dpo", {}, lambda rows: math.log(2)),
        ("dpo", {"nll_alpha": 2.0}, None),
        ("sppo", {"beta": 0.5}, lambda rows: np.mean([(p - 0.5) ** 2 / 0.5**2 / 2 for row in rows for p in row]) * 2),
    ],
)
def test_the_first_step_is_at_its_closed_form(
    kind: str, loss: dict[str, Any], first: Callable[[Any], float] | None, folders: dict[str, str], tmp_path: Path
) -> None:
    same_reference = {**folders, "reference": folders["policy"]}
    settings = job(tmp_path, same_reference, kind, loss=loss, batch_size=48, micro_batch_size=16, warmup_ratio=0.0)  # all pairs in one step
    train(settings)
    entry = log(settings)[0]
    table = pq.read_table(Path(folders["pairs"]) / "rows.parquet")
    wins = np.stack([table[f"{side}_win_probability"].to_numpy() for side in ("chosen", "rejected")], axis=1)
    wanted_loss = first(wins) if first else math.log(2) + 2.0 * entry["nll"]
    assert entry["loss"] == pytest.approx(wanted_loss, rel=1e-5)
    assert entry["rewards/margins"] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("kind", ["dpo", "sppo", "simpo", "orpo"])
def test_accumulation_and_padding_side_do_not_change_the_training(kind: str, folders: dict[str, str], tmp_path: Path) -> None:
    loss = {"nll_alpha": 0.5}
    uneven_folders = {**folders, "pairs": save_pairs(tmp_path / "uneven", count=41)}  # the last step is filled up
    left_folders = {**uneven_folders, "policy": str(shutil.copytree(folders["policy"], tmp_path / "left"))}
    load_tokenizer(folders["policy"], padding_side="left").save_pretrained(left_folders["policy"])
    assert load_tokenizer(left_folders["policy"]).padding_side == "left"
    whole_job = job(tmp_path / "16", uneven_folders, kind, loss=loss, micro_batch_size=16)
    cut_job = job(tmp_path / "4", left_folders, kind, loss=loss, micro_batch_size=4)
    assert distance(train(whole_job), train(cut_job)) < 1e-6
    assert distance_moved(whole_job) > 1e-4
    for mine, cut_entry in zip(log(whole_job), log(cut_job), strict=True):
        assert mine["loss"] == pytest.approx(cut_entry["loss"], rel=1e-5)


def test_two_processes_train_as_one(folders: dict[str, str], tmp_path: Path) -> None:
    job_of_one, job_of_two = (job(tmp_path / name, folders, "dpo", micro_batch_size=4) for name in ("one", "two"))
    job_of_two.write(tmp_path / "job.json")
    command = ["-m", "accelerate.commands.launch", "--config_file", str(launch_path("cpu_2")), "-m", "eva_stages.solver.train"]
    result = subprocess.run([sys.executable, *command, str(tmp_path / "job.json")], capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stderr
    assert distance(train(job_of_one), weights(job_of_two)) < 1e-6
    assert distance_moved(job_of_one) > 1e-4
    assert counts(job_of_one) == counts(job_of_two)


def test_one_process_has_the_environment_that_accelerate_would_start_it_in(tmp_path: Path) -> None:
    file = tmp_path / "launch.yaml"
    file.write_text(launch_path("cpu").read_text().replace('mixed_precision: "no"', "mixed_precision: bf16\ngpu_ids: '1'"))
    script = tmp_path / "script.py"
    script.write_text("import json, os; print(json.dumps(dict(os.environ)))")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(file), str(script)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    its_environment = json.loads(result.stdout.splitlines()[-1])
    our_environment = single_process_environment(str(file))
    assert our_environment["ACCELERATE_MIXED_PRECISION"] == "bf16" and our_environment["CUDA_VISIBLE_DEVICES"] == "1"
    shell_variables = ("LC_CTYPE", "COLUMNS", "LINES")  # the shell's
    additions = [
        {item for item in environment.items() if item not in os.environ.items() and item[0] not in shell_variables}
        for environment in (our_environment, its_environment)
    ]
    assert additions[0] == additions[1]


def test_only_a_launch_file_of_one_plain_process_is_started_without_accelerates_launcher(tmp_path: Path) -> None:
    packaged_names = [path.stem for path in launch_path("cpu").parent.glob("*.yaml")]
    assert {name for name in packaged_names if read_launch_file(name).is_single} == {"cpu", "single_gpu"}
    for words, is_single in (
        ("distributed_type: NO", True),
        ("distributed_type: FSDP\nnum_processes: 1", False),
        ("num_processes: 2", False),
    ):
        (tmp_path / "launch.yaml").write_text(words)
        assert read_launch_file(str(tmp_path / "launch.yaml")).is_single == is_single, words


def test_a_training_of_one_process_tells_its_cause_and_goes_on_as_in_this_process(folders: dict[str, str], tmp_path: Path) -> None:
    job_here, forked_job = (job(tmp_path / name, folders, "dpo") for name in ("here", "forked"))
    work = forked_job.work
    inputs = {name: Path(folders[name]) for name in ("policy", "reference", "pairs")}
    context = Context(work, work / "data", inputs, cast(Any, Reporter().task("train").__enter__()), tmp_path)
    with pytest.raises(StageError, match=r"^ValueError: .+batch_size 7 is not a multiple of .+; the full trace is in .+training.log"):
        launching.train(context, **arguments(job(tmp_path / "uneven", folders, "dpo", batch_size=7, micro_batch_size=2)))
    launching.train(context, **arguments(forked_job))
    assert distance(train(job_here), weights(forked_job)) < 1e-6
    assert distance_moved(job_here) > 1e-4


def test_a_job_is_read_as_it_was_written_and_a_key_too_many_or_too_few_is_an_error(folders: dict[str, str], tmp_path: Path) -> None:
    settings = job(tmp_path, folders, "sppo", adapter={"kind": "qlora"}, report_to=["wandb"])
    settings.write(tmp_path / "job.json")
    assert read_job(tmp_path / "job.json") == settings and settings.uses_four_bits
    content = json.loads((tmp_path / "job.json").read_text())
    del content["training"]["runtime"]["liger"], content["loss"]["beta"]
    for damaged_content, message in (
        (content, "it lacks loss.beta, training.runtime.liger$"),
        ({**content, "gpus": 2}, "gpus\n +Extra inputs"),
    ):
        (tmp_path / "job.json").write_text(json.dumps(damaged_content))
        with pytest.raises(DamagedError, match=message):
            read_job(tmp_path / "job.json")


def test_a_person_sees_how_far_the_references_pass_is(folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "REPORT_SECONDS", 0)
    settings = job(tmp_path, folders, "dpo", batch_size=16, epochs=2)
    make_trainer(settings)
    task = Task(Terminal(), "0-train", "steps")
    launching._show(Context(tmp_path, tmp_path / "data", {}, task, tmp_path), settings, 0)
    assert task.state == "reference 48/48 pairs"


class Killer(Task):
    """A stage's progress; kills what trains on the second machine once there is something to resume from."""

    def __init__(self, work: Path) -> None:
        super().__init__(Console(stderr=True), "train", "steps")
        self._work = work

    def update(self, *progress: Any) -> None:
        if not list(self._work.glob("checkpoints/checkpoint-*/whole.json")):
            return
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "--machine_rank 1" in " ".join(process.cmdline()):
                    for member in (process, *process.children(recursive=True)):
                        member.kill()


def test_training_killed_on_one_of_two_machines_ends_with_the_cause_and_goes_on_as_if_on_one(
    folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_srun(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    changes = {"epochs": 6, "batch_size": 8, "micro_batch_size": 4}
    unbroken_job = job(tmp_path / "unbroken", folders, "dpo", **changes)
    killed_job = job(tmp_path / "killed", folders, "dpo", **changes, starter="slurm", launch=two_machines(tmp_path))
    work = killed_job.work
    inputs = {name: Path(folders[name]) for name in ("policy", "reference", "pairs")}
    context = Context(work, work / "data", inputs, Killer(work), tmp_path)
    with pytest.raises(
        StageError,
        match=r"^machine 1 \(.+\): training.* was killed by signal 9 \(SIGKILL; out of memory\?\); its output is in .+training-1.log",
    ):
        launching.train(context, **arguments(killed_job))
    arguments_here = arguments(unbroken_job)
    launching.train(dataclasses.replace(context, task=cast(Any, Reporter().task("train").__enter__())), **arguments_here)
    assert counts(killed_job)["steps"] == 36 and len(log(killed_job)) == 36
    assert distance(train(unbroken_job), weights(killed_job)) < 1e-6
    assert distance_moved(killed_job) > 1e-3


def test_live_and_precomputed_reference_train_alike_and_a_sweep_needs_no_reference(folders: dict[str, str], tmp_path: Path) -> None:
    live = job(tmp_path / "live", folders, "dpo", precompute_reference=False)
    cached_job = job(tmp_path / "kept", folders, "dpo")
    assert distance(train(live), train(cached_job)) < 1e-6
    assert distance_moved(live) > 1e-4
    (file,) = (tmp_path / "kept" / "cache").rglob("*.parquet")
    cache_bytes = file.read_bytes()

    def without_reference(job: TrainingJob) -> TrainingJob:
        return job.model_copy(update={"inputs": {**job.inputs, "reference": tmp_path / "gone"}})

    repeated_job = without_reference(job(tmp_path / "again", folders, "dpo", cache=cached_job.cache))
    assert distance(train(repeated_job), weights(cached_job)) < 1e-6
    sweep = without_reference(job(tmp_path / "sweep", folders, "sppo", cache=cached_job.cache))
    assert distance(train(sweep), weights(cached_job)) > 1e-4
    assert file.read_bytes() == cache_bytes
    with pytest.raises(DataError, match="has no"):  # other content, other numbers: here the reference is needed
        train(without_reference(job(tmp_path / "other", folders, "dpo", loss={"ld_alpha": 0.5}, cache=cached_job.cache)))
    file.write_bytes(cache_bytes[:100])
    assert distance(train(job(tmp_path / "torn", folders, "dpo", cache=cached_job.cache)), weights(cached_job)) < 1e-6


def test_the_reference_is_gone_before_the_policy_trains(folders: dict[str, str], tmp_path: Path) -> None:
    def models() -> int:
        gc.collect()
        return sum(isinstance(item, LlamaForCausalLM) for item in gc.get_objects())

    models_before = models()
    trainer, _ = make_trainer(job(tmp_path, folders, "dpo"))
    assert models() == models_before + 1 and trainer.ref_model is None
    assert "ref_chosen_logps" in trainer.train_dataset.column_names


def test_a_reference_with_another_vocabulary_is_refused_before_it_is_loaded(folders: dict[str, str], tmp_path: Path) -> None:
    policy = Path(folders["policy"])
    same_vocabulary(policy, Path(folders["reference"]))
    (tmp_path / "config.json").write_text(json.dumps({**json.loads((policy / "config.json").read_text()), "vocab_size": 77}))
    with pytest.raises(ConfigError, match=r"vocabulary has \d+ tokens and the reference's 77, .* set solver.reference=previous"):
        same_vocabulary(policy, tmp_path)


FUTURE = 4e9


def start(settings: TrainingJob, largest_file: int = resource.RLIM_INFINITY) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
    log = os.open(settings.work / "training.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    train(settings)


def test_killed_at_three_points_and_out_of_room_training_ends_as_an_unbroken_one(folders: dict[str, str], tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["eva_stages.solver.preference"])
    changes = {"epochs": 6, "batch_size": 8, "micro_batch_size": 4, "checkpoints_per_epoch": 2, "loss": {"nll_alpha": 0.5}}
    unbroken_job, killed_job = (job(tmp_path / name, folders, "dpo", **changes) for name in ("unbroken", "killed"))
    checkpoints = killed_job.work / "checkpoints"
    for step in (3, 15, 27):
        process = context.Process(target=start, args=(killed_job,))
        process.start()
        while process.is_alive() and not (checkpoints / f"checkpoint-{step}" / "whole.json").is_file():
            process.join(timeout=0.005)
        assert process.pid is not None and process.is_alive(), "the training was over before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        for checkpoint in checkpoints.iterdir():  # as if the clock had been put back since
            os.utime(checkpoint, (FUTURE, FUTURE))
    newest = max(checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    weights_file = newest / "model.safetensors"  # as if the disk had lost what it was told to keep
    content = bytearray(weights_file.read_bytes())
    content[len(content) // 2] ^= 255
    weights_file.write_bytes(content)
    for room, code in ((len(content) // 2, 1), (resource.RLIM_INFINITY, 0)):  # a quota that the next checkpoint exceeds; then none
        process = context.Process(target=start, args=(killed_job, room))
        process.start()
        process.join()
        assert process.exitcode == code
    log_text = (killed_job.work / "training.log").read_text()
    assert f"{newest} is incomplete; using the previous checkpoint" in log_text and "File too large" in log_text
    train(unbroken_job)
    assert counts(killed_job) == counts(unbroken_job) and counts(killed_job)["steps"] == 36
    assert distance(weights(killed_job), weights(unbroken_job)) < 1e-6
    assert distance_moved(killed_job) > 1e-3
    for mine, unbroken_entry in zip(log(killed_job), log(unbroken_job), strict=True):
        assert mine["loss"] == pytest.approx(unbroken_entry["loss"], rel=1e-4), mine["step"]


def test_a_half_written_checkpoint_is_no_checkpoint(folders: dict[str, str], tmp_path: Path) -> None:
    settings = job(tmp_path, folders, "dpo", checkpoints_per_epoch=3)
    train(settings)
    checkpoints = tmp_path / "checkpoints"
    assert last_complete_checkpoint(checkpoints) == str(checkpoints / "checkpoint-3")
    for missing in ("trainer_state.json", "optimizer.pt", "whole.json"):
        shutil.copytree(checkpoints / "checkpoint-3", checkpoints / "checkpoint-4")
        (checkpoints / "checkpoint-4" / missing).unlink()
        assert last_complete_checkpoint(checkpoints) == str(checkpoints / "checkpoint-3")
        assert (checkpoints / "broken-checkpoint-4").is_dir()
    (checkpoints / "checkpoint-3" / "scheduler.pt").write_bytes(b"")
    assert last_complete_checkpoint(checkpoints) == str(checkpoints / "checkpoint-2")


def test_adapters_are_merged_and_weights_keep_the_type_they_came_in(folders: dict[str, str], tmp_path: Path) -> None:
    for name in ("policy", "reference"):
        model = AutoModelForCausalLM.from_pretrained(folders[name]).to(torch.bfloat16)
        model.save_pretrained(tmp_path / name)
        load_tokenizer(folders[name]).save_pretrained(tmp_path / name)
    half = {**folders, "policy": str(tmp_path / "policy"), "reference": str(tmp_path / "policy")}
    full = job(tmp_path / "full", half, "dpo", dtype="bfloat16")
    assert {tensor.dtype for tensor in train(full).values()} == {torch.bfloat16}
    assert AutoModelForCausalLM.from_pretrained(full.work / "model").dtype == torch.bfloat16
    same_reference = {**folders, "reference": folders["policy"]}
    adapter = {"kind": "lora", "rank": 4, "alpha": 8.0, "dropout": 0.0}
    for kind, precompute in (("dpo", True), ("dpo", False), ("simpo", True)):
        lora = job(
            tmp_path / f"{kind}-{precompute}", same_reference, kind, adapter=adapter, learning_rate=1e-2, precompute_reference=precompute
        )
        merged_weights = train(lora)
        if kind == "dpo":
            assert log(lora)[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
        assert set(merged_weights) == set(load_file(Path(same_reference["policy"]) / "model.safetensors")) and distance_moved(lora) > 1e-4
        model = lora.work / "model"
        assert (model / "adapter" / "adapter_model.safetensors").is_file() and not list(model.glob("adapter_*"))
        assert load_tokenizer(str(model)).chat_template


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_each_round_keeps_its_adapter_which_on_the_policy_it_started_from_gives_the_merged_weights(
    dtype: str, folders: dict[str, str], tmp_path: Path
) -> None:
    policy = tmp_path / "policy"
    AutoModelForCausalLM.from_pretrained(folders["policy"]).to(getattr(torch, dtype)).save_pretrained(policy)
    load_tokenizer(folders["policy"]).save_pretrained(policy)
    adapter = {"kind": "lora", "rank": 4, "alpha": 8.0, "dropout": 0.0}
    digests = set()
    for name in ("first", "second"):  # the second starts from a folder that has an adapter beside its weights
        same_reference = {**folders, "policy": str(policy), "reference": str(policy)}
        settings = job(tmp_path / name, same_reference, "dpo", adapter=adapter, learning_rate=1e-2, dtype=dtype)
        merged_weights, model = train(settings), settings.work / "model"
        base = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
        weights_again = PeftModel.from_pretrained(base, model / "adapter").merge_and_unload().to(getattr(torch, dtype)).state_dict()
        assert all(torch.equal(weights_again[name], tensor) for name, tensor in merged_weights.items()) and distance_moved(settings) > 1e-4
        assert read_model(model, dtype).weights == (model / "model.safetensors").stat().st_size
        digests |= {tree_digest(model), tree_digest(model / "adapter")}
        policy = model
    assert len(digests) == 4


def test_gradient_checkpointing_changes_nothing(folders: dict[str, str], tmp_path: Path) -> None:
    plain_job, checkpointing_job = (job(tmp_path / str(flag), folders, "dpo", gradient_checkpointing=flag) for flag in (False, True))
    assert distance(train(plain_job), train(checkpointing_job)) < 1e-6


def test_too_long_pairs_are_dropped_or_their_responses_cut_and_counted(folders: dict[str, str], tmp_path: Path) -> None:
    words = Chat(load_tokenizer(folders["policy"]))
    tokenize(Path(folders["pairs"]), words, 1000, "drop", tmp_path / "all.arrow")
    whole, all_counts = read_tokens(tmp_path / "all.arrow")
    assert all_counts == {"pairs": 48, "too_long": 0, "truncated": 0, "empty": 0}
    limit = 12
    longest = [len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])) for row in whole]
    long_prompts = sum(len(row["prompt_ids"]) >= limit for row in whole)
    for way in ("drop", "truncate"):
        tokenize(Path(folders["pairs"]), words, limit, way, tmp_path / f"{way}.arrow")
    dropped_pairs, drop_counts = read_tokens(tmp_path / "drop.arrow")
    cut_pairs, cut_counts = read_tokens(tmp_path / "truncate.arrow")
    too_long = sum(length > limit for length in longest)
    assert 0 < long_prompts < too_long < 48
    assert drop_counts == {"pairs": 48 - too_long, "too_long": too_long, "truncated": 0, "empty": 0}
    assert cut_counts == {"pairs": 48 - long_prompts, "too_long": long_prompts, "truncated": too_long - long_prompts, "empty": 0}
    assert len(dropped_pairs) == drop_counts["pairs"] and len(cut_pairs) == cut_counts["pairs"]
    originals = {tuple(row["prompt_ids"]): row for row in whole}
    for row in cut_pairs:
        original = originals[tuple(row["prompt_ids"])]  # the prompt is whole
        for side in ("chosen_ids", "rejected_ids"):
            assert row[side] == original[side][: limit - len(row["prompt_ids"])] and row[side]
    with pytest.raises(DataError, match=r"none of the 48 pairs fits into solver.training.max_length = 4 tokens"):
        tokenize(Path(folders["pairs"]), words, 4, "truncate", tmp_path / "none.arrow")
    assert not (tmp_path / "none.arrow").exists()


def test_token_ids_are_trls_own(folders: dict[str, str], tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    words = load_tokenizer(folders["policy"])
    table = pq.read_table(Path(folders["pairs"]) / "rows.parquet", columns=["prompt", "chosen", "rejected"])
    model = AutoModelForCausalLM.from_pretrained(folders["policy"])
    arguments = DPOConfig(output_dir=str(tmp_path), bf16=False, report_to=[])
    their_rows = DPOTrainer(model=model, args=arguments, train_dataset=Dataset(table), processing_class=words).train_dataset
    tokenize(Path(folders["pairs"]), Chat(words), 1000, "drop", tmp_path / "ours.arrow")
    our_rows, _ = read_tokens(tmp_path / "ours.arrow")
    for column in ("prompt_ids", "chosen_ids", "rejected_ids"):
        assert list(our_rows[column]) == list(their_rows[column])


def test_an_epoch_is_a_permutation_filled_up_to_whole_steps() -> None:
    samples = PaddedSamples(np.zeros(10), 4, 7)
    samples.set_epoch(1)
    order = list(samples)
    assert len(order) == len(samples) == 12 and sorted(order[:10]) == list(range(10)) and order[10:] == order[:2]
    samples.set_epoch(2)
    assert list(samples) != order and len(list(PaddedSamples(np.zeros(3), 8, 0))) == 8


def test_sorting_by_length_keeps_the_pairs_of_every_step() -> None:
    lengths = np.random.default_rng(0).integers(1, 9, 30)
    shuffled_steps, sorted_steps = (np.array(list(PaddedSamples(values, 8, 7))).reshape(-1, 8) for values in (np.zeros(30), lengths))
    assert np.array_equal(np.sort(shuffled_steps), np.sort(sorted_steps)) and (np.diff(lengths[sorted_steps]) <= 0).all()


@pytest.mark.parametrize("kind", ["dpo", "sppo", "simpo", "orpo", "aot"])
def test_sorting_a_step_changes_its_loss_and_gradient_by_rounding(kind: str, folders: dict[str, str], tmp_path: Path) -> None:
    settings = job(tmp_path, folders, kind, loss={"nll_alpha": 0.5}, micro_batch_size=4)
    trainer, _ = load_attribute(f"{trainer_target(kind).partition(':')[0]}:make_trainer")(settings)
    micro_batches = list(itertools.islice(trainer.get_train_dataloader(), 4))
    lengths = [max(int(mask.sum(dim=1).max()) for name, mask in batch.items() if "attention_mask" in name) for batch in micro_batches]
    assert (lengths == sorted(lengths, reverse=True)) == trainer.sorts_steps == (kind != "aot")
    trainer.model.double()
    sorted_gradient, sorted_loss = step(trainer)
    trainer.sorts_steps = False
    gradient, mean_loss = step(trainer)
    assert sorted_loss == pytest.approx(mean_loss, rel=1e-5)
    assert (sorted_gradient - gradient).norm() < 1e-5 * gradient.norm()


def step(trainer: Any) -> tuple[torch.Tensor, float]:
    """The gradient and the loss of the first step, in micro batches."""
    trainer.model.zero_grad()
    losses = [trainer.compute_loss(trainer.model, batch) / 4 for batch in itertools.islice(trainer.get_train_dataloader(), 4)]
    total = sum(losses)
    total.backward()
    return torch.cat([parameter.grad.flatten().clone() for parameter in trainer.model.parameters()]), float(total)


def test_progress_goes_by_the_last_whole_line_of_this_attempt(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert last_entry(path) is None
    path.write_text('{"step": 40, "total_steps": 50, "loss": 3}\n')
    marks: list[Any] = []
    task = cast(Any, SimpleNamespace(update=lambda *progress: marks.append(progress), mark=marks.append, phase=STARTING))
    context, begun_bytes = Context(tmp_path, tmp_path / "data", {}, task, tmp_path), path.stat().st_size
    launching._show(context, cast(Any, None), begun_bytes)
    assert marks == [], "an earlier attempt's step is none of this one's"
    with path.open("a") as stream:
        stream.write('{"step": 29, "total_steps": 50, "loss": 2}\n{"step": 30, "lo')
    launching._show(context, cast(Any, None), begun_bytes)
    assert marks == [29, (29, 50, 0, "loss 2.000")]


def test_machines_that_slurm_started_end_with_eva(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_srun(tmp_path / "bin")
    eva = subprocess.Popen(["sleep", "600"])
    began = tmp_path / "began"
    work = f"import pathlib, time; pathlib.Path({str(began)!r}).touch(); time.sleep(600)"
    order = {"machines": 1, "command": [sys.executable, "-c", work], "job": [], "environment": {}, "work": str(tmp_path)}
    (tmp_path / "order.json").write_text(json.dumps({**order, "meeting": str(tmp_path / "meeting.json")}))
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", LAUNCHER: str(eva.pid)}
    command = [sys.executable, "-m", "eva_stages.solver.slurm", str(tmp_path / "order.json")]
    starter = psutil.Popen(command, env=environment, cwd=ROOT)
    while not began.exists():
        assert starter.poll() is None
        time.sleep(0.05)
    family = [starter, *starter.children(recursive=True)]
    assert len(family) == 4  # the starter, srun, the machine's share, and what it launched
    eva.kill()
    eva.wait()
    assert psutil.wait_procs(family, timeout=30)[1] == []
