"""What every solver training shares: models, common arguments, complete optimiser steps, resumption, and the end."""

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from torch.utils.data import Sampler
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TrainerCallback

from eva_stages.core.durable import sync, write_whole
from eva_stages.core.errors import DataError
from eva_stages.core.study_record import with_all_tokens
from eva_stages.models.adapters import with_adapter
from eva_stages.models.conversation import Chat
from eva_stages.models.loading import load_tokenizer
from eva_stages.models.sampling import neutral_generation_config
from eva_stages.models.weights import load_strictly
from eva_stages.solver.checkpoints import CheckpointDigests, last_complete_checkpoint
from eva_stages.solver.finite import StopAtNonFinite, changed_share, unchanged_reason
from eva_stages.solver.job import TrainingJob
from eva_stages.solver.saving import cast_weights, clean_adapter, lora_settings, merge_adapter, weights_dtype
from eva_stages.solver.tokens import pair_lengths, read_tokens, tokenize

FACTS = {"loss": "loss", "reward_margin": "rewards/margins", "reward_accuracy": "rewards/accuracies", "reward": "reward"}
"""Figures of the end of a training in the manifest, and their names in trainers' logs."""
GENERATION = "generation_config.json"


class MetricsFile(TrainerCallback):
    """Appends the metrics of every optimiser step to a file of JSON lines, with its number since `first_step`."""

    def __init__(self, path: Path, first_step: int) -> None:
        self._path, self._first_step = path, first_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if state.is_world_process_zero and logs and "loss" in logs:
            steps = {"step": state.global_step - self._first_step, "total_steps": state.max_steps - self._first_step}
            entry = {**steps, **logs}
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(entry) + "\n")


class PaddedSamples(Sampler[int]):
    """Row numbers of an epoch: a permutation from (seed, epoch), padded from its beginning to complete optimiser steps.

    So every step is a mean over the same number of rows, independent of micro batches and processes. The rows of a step are in descending
    order of length: a micro batch then needs little padding, and processes, which take consecutive ones, have equal work.

    Args:
        lengths: of each row; rows of equal length are in the order of the permutation.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int) -> None:
        self._lengths, self._batch_size, self._seed = lengths, batch_size, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self._lengths) / self._batch_size) * self._batch_size

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng([self._seed, self._epoch]).permutation(len(self._lengths))
        steps = np.resize(order, len(self)).reshape(-1, self._batch_size)
        places = np.argsort(-self._lengths[steps], axis=1, kind="stable")
        return iter(np.take_along_axis(steps, places, axis=1).ravel().tolist())


class CompleteSteps:
    """Mixed into a trainer of pairs: its rows come from `PaddedSamples`."""

    sorts_steps = True
    """Whether the pairs of a step are sorted by length; false for losses that the other pairs of a micro batch affect."""
    aux_loss_enabled: bool
    """Whether the loss has a term for the load of a micro batch on the experts."""
    args: Any
    train_dataset: Any
    accelerator: Any

    def _get_train_sampler(self, train_dataset: Any = None) -> PaddedSamples:
        lengths = pair_lengths(self.train_dataset if train_dataset is None else train_dataset)
        if self.aux_loss_enabled or not self.sorts_steps:
            lengths = np.zeros_like(lengths)
        batch = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps * self.accelerator.num_processes
        return PaddedSamples(lengths, batch, self.args.seed)


def load_policy(job: TrainingJob) -> Any:
    """The policy to train.

    Steps of 5e-7 vanish in bfloat16 weights, so weights that are trained are float32 whatever the arithmetic is. Under an adapter
    they are frozen, and are in the arithmetic's type or in 4 bits.
    """
    policy = _load_policy(job)
    tokenizer = load_tokenizer(str(job.policy))
    # rloo would apply the model's own sampling settings, and some of them cannot be saved again
    policy.generation_config = neutral_generation_config(chat_of(job, tokenizer).end_tokens(job.policy), tokenizer.pad_token_id)
    return policy if job.first_adapter is None else with_adapter(policy, job.first_adapter, is_trainable=True)


def _load_policy(job: TrainingJob) -> Any:
    if job.training.adapter is None:
        return _load(job.start, job, torch.float32)
    dtype = getattr(torch, job.training.dtype)
    if not job.uses_four_bits:
        return _load(job.start, job, dtype)
    four_bits = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    device_map = {"": PartialState().device}
    return _load(job.start, job, dtype, quantization_config=four_bits, device_map=device_map)


def load_reference(job: TrainingJob) -> Any:
    """The reference policy, in the arithmetic's type, with the adapter that training goes on from."""
    reference = _load(job.reference, job, getattr(torch, job.training.dtype))
    return reference if job.first_adapter is None else with_adapter(reference, job.first_adapter).merge_and_unload()


def _load(folder: Path, job: TrainingJob, dtype: torch.dtype, **settings: Any) -> Any:
    return load_strictly(AutoModelForCausalLM, folder, job.training.attention, dtype=dtype, **settings)


def lora(job: TrainingJob) -> Any:
    """peft's configuration of the job's new adapter; None where all weights are trained, or an adapter further."""
    if job.training.adapter is None or job.first_adapter is not None:
        return None
    return lora_settings(job.training.adapter)


def tokenized_pairs(job: TrainingJob, tokenizer: Any) -> tuple[Path, Dataset, dict[str, int]]:
    """The file with the token ids of the job's pairs, the pairs, and their counts. Written by one process."""
    path = job.work / "tokens.arrow"
    with PartialState().main_process_first():
        if not path.is_file():
            tokenize(job.inputs["pairs"], chat_of(job, tokenizer), job.training.max_length, job.training.too_long, path)
        return path, *read_tokens(path)


def chat_of(job: TrainingJob, tokenizer: Any) -> Chat:
    """The conversations as the policy's prompts were rendered when responses were sampled."""
    return Chat(tokenizer, job.date, job.system_prompt)


def common_arguments(job: TrainingJob, rows: int, processes: int) -> dict[str, Any]:
    """The settings that all TRL configurations share.

    Args:
        rows: training rows of an epoch.

    Raises:
        ValueError: if the batch size cannot be made up of micro batches over the processes.
    """
    training, runtime = job.training, job.training.runtime
    micro = min(runtime.micro_batch_size, training.batch_size // processes)
    if micro < 1 or training.batch_size % (micro * processes):
        raise ValueError(
            f"solver.training.batch_size {training.batch_size} is not a multiple of micro_batch_size {micro} x {processes} processes"
        )
    steps_per_epoch = math.ceil(rows / training.batch_size)
    return {
        "output_dir": str(job.work / "checkpoints"),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": training.batch_size // (micro * processes),
        "num_train_epochs": training.epochs if job.online is None else job.online.number + 1,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": training.scheduler,
        "optim": training.optimizer,
        "warmup_steps": training.warmup_ratio,
        "max_grad_norm": training.max_grad_norm,
        "use_cpu": PartialState().device.type == "cpu",
        "bf16": training.dtype == "bfloat16",
        "gradient_checkpointing": training.gradient_checkpointing,
        "seed": job.seed,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # otherwise the trainer logs the mean of earlier losses instead
        "save_steps": max(1, math.ceil(steps_per_epoch / training.checkpoints_per_epoch)),
        "report_to": list(runtime.report_to),
        "run_name": job.label,
        "use_liger_kernel": runtime.liger,
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
    }


def fit(trainer: Any, job: TrainingJob, counts: Mapping[str, float]) -> None:
    """Train to the end, from the last complete checkpoint if there is one, and write `model/` and `result.json` to the work folder."""
    run_trainer(trainer, job, last_checkpoint(job))
    save_result(trainer, job, counts)


def last_checkpoint(job: TrainingJob) -> Path | None:
    """The last complete checkpoint of an earlier attempt, the same in every process."""
    folder = job.work / "checkpoints"
    checkpoint = [last_complete_checkpoint(folder) if PartialState().is_main_process else None]
    broadcast_object_list(checkpoint)
    return None if checkpoint[0] is None else Path(checkpoint[0])


def run_trainer(trainer: Any, job: TrainingJob, checkpoint: Path | None) -> None:
    """Train to the end, from a checkpoint if there is one."""
    trainer.add_callback(MetricsFile(job.work / "metrics.jsonl", job.first_step))
    trainer.add_callback(StopAtNonFinite(job))
    trainer.add_callback(CheckpointDigests())
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))


def save_result(
    trainer: Any,
    job: TrainingJob,
    counts: Mapping[str, float],
    more_facts: Mapping[str, Any] | None = None,
    add_files: Callable[[Path], None] | None = None,
) -> None:
    """Write `model/` and `result.json` to the work folder.

    Args:
        more_facts: for the manifest.
        add_files: adds files to the folder of the weights.
    """
    main = trainer.is_world_process_zero()
    partial_model = job.work / "model.partial"
    if main:
        shutil.rmtree(partial_model, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    trainer.save_model(str(partial_model))
    if main:
        _finish(trainer, job, partial_model, counts, more_facts or {}, add_files)


def _finish(
    trainer: Any,
    job: TrainingJob,
    model: Path,
    counts: Mapping[str, float],
    more_facts: Mapping[str, Any],
    add_files: Callable[[Path], None] | None,
) -> None:
    """Write the checkpoint, its training log and the facts for the manifest."""
    history = [entry for entry in trainer.state.log_history if "loss" in entry and entry["step"] > job.first_step]
    (model / "training_args.bin").unlink(missing_ok=True)
    dtype = weights_dtype(job.policy)
    if job.keeps_adapter:
        clean_adapter(model)
    elif job.training.adapter:
        merge_adapter(job.start, model)
    if not job.keeps_adapter:
        cast_weights(model, dtype)
    share_changed = changed_share(job.first_adapter or job.policy, model)
    if share_changed == 0:
        raise DataError(f"training changed no weight of the policy: {unchanged_reason(history, dtype)}. No policy was saved")
    if (own_settings := job.policy / GENERATION).is_file() and not job.keeps_adapter:
        shutil.copyfile(own_settings, model / GENERATION)
    write_whole(model / "training_log.json", json.dumps(history, indent=1))
    end = history[-max(1, len(history) // 4) :]  # a single batch is noisy; the last quarter of the steps shows how training ended
    facts = {
        "counts": {**with_all_tokens(counts), "steps": trainer.state.global_step - job.first_step},
        "training": {
            name: sum(values) / len(values)
            for name, logged_name in FACTS.items()
            if (values := [entry[logged_name] for entry in end if entry.get(logged_name) is not None])  # a step may have no pairs
        },
        "changed_share": share_changed,
        "devices": _devices(),
        "reference_seconds": getattr(trainer, "reference_seconds", 0.0),
        **more_facts,
    }
    if add_files is not None:
        add_files(model)
    write_whole(job.work / "result.json", json.dumps(facts))
    model.rename(job.work / "model")
    sync(job.work)


def _devices() -> dict[str, Any]:
    """The accelerators of all processes: their number, and the names of those on this node."""
    state = PartialState()
    if state.device.type != "cuda":
        return {"count": 0, "names": []}
    names = {torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())}
    return {"count": state.num_processes, "names": sorted(names)}
