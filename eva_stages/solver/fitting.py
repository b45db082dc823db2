"""What every solver training shares: the common arguments, the metrics file, resumption, and the finished checkpoint.

A resumed training takes its weights, its optimiser and its place from its last whole checkpoint and everything else from the job.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from eva_stages.core.store import sync, write_whole

FACTS = {"loss": "loss", "reward_margin": "rewards/margins", "reward_accuracy": "rewards/accuracies", "reward": "reward"}
"""What the manifest tells of the end of a training, and how trainers log it."""


class MetricsFile(TrainerCallback):
    """Appends the metrics of every optimiser step to a file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if state.is_world_process_zero and logs and "loss" in logs:
            entry = {"step": state.global_step, "total_steps": state.max_steps, **logs}
            with self._path.open("a") as stream:
                stream.write(json.dumps(entry) + "\n")


def load_policy(job: dict[str, Any]) -> Any:
    """The policy to train. Steps of 5e-7 vanish in bfloat16 weights, so its weights are float32 whatever the arithmetic is."""
    return AutoModelForCausalLM.from_pretrained(job["policy"], dtype=torch.float32, use_safetensors=True)


def common_arguments(job: dict[str, Any], rows: int, processes: int) -> dict[str, Any]:
    """The part of TRL's configurations that all trainers share.

    Args:
        rows: training rows of an epoch.

    Raises:
        ValueError: if the batch size cannot be made up of micro batches over the processes.
    """
    micro = min(job["micro_batch_size"], job["batch_size"] // processes)
    if micro < 1 or job["batch_size"] % (micro * processes):
        raise ValueError(
            f"solver.training.batch_size {job['batch_size']} is no multiple of micro_batch_size {micro} x {processes} processes"
        )
    steps_per_epoch = math.ceil(rows / job["batch_size"])
    return {
        "output_dir": str(Path(job["work"]) / "checkpoints"),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": job["batch_size"] // (micro * processes),
        "num_train_epochs": job["epochs"],
        "learning_rate": job["learning_rate"],
        "lr_scheduler_type": job["scheduler"],
        "optim": job["optimizer"],
        "warmup_steps": job["warmup_ratio"],
        "max_grad_norm": job["max_grad_norm"],
        "bf16": job["dtype"] == "bfloat16",
        "gradient_checkpointing": job["gradient_checkpointing"],
        "seed": job["seed"],
        "logging_steps": 1,
        "save_steps": max(1, math.ceil(steps_per_epoch / job["checkpoints_per_epoch"])),
        "save_total_limit": 2,
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
    }


def whole_checkpoint(folder: Path) -> str | None:
    """The last checkpoint that was written to its end (its trainer state is written last)."""
    for _ in range(len(list(folder.glob("checkpoint-*")))):
        last = get_last_checkpoint(str(folder))
        if last is None:
            return None
        try:
            json.loads((Path(last) / "trainer_state.json").read_text())
            return last
        except (OSError, ValueError):
            print(f"{last} is not whole; going back to the one before", flush=True)
            Path(last).rename(Path(last).with_name("broken-" + Path(last).name))
    return None


def fit(trainer: Any, job: dict[str, Any], counts: dict[str, int]) -> None:
    """Train to the end, from the last whole checkpoint if there is one, and leave `model/` and `result.json` in the work folder."""
    work = Path(job["work"])
    trainer.train(resume_from_checkpoint=whole_checkpoint(work / "checkpoints"))
    trainer.save_model(str(work / "model.partial"))
    if trainer.is_world_process_zero():
        _finish(trainer, work, counts)


def _finish(trainer: Any, work: Path, counts: dict[str, int]) -> None:
    """Leave the checkpoint, its training log and the facts for the manifest."""
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    model = work / "model.partial"
    (model / "training_args.bin").unlink(missing_ok=True)
    write_whole(model / "training_log.json", json.dumps(history, indent=1))
    end = history[-max(1, len(history) // 4) :]  # one batch says little; the last quarter of the steps says how it ended
    facts = {
        "counts": {**counts, "steps": trainer.state.global_step},
        "training": {
            name: sum(entry[logged] for entry in end) / len(end) for name, logged in FACTS.items() if all(logged in entry for entry in end)
        },
    }
    write_whole(work / "result.json", json.dumps(facts))
    model.rename(work / "model")
    sync(work)
