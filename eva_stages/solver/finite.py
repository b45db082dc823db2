"""Training ends at the first number that is not finite; no checkpoint with such a number is saved, used for resuming or published.

The loss and the gradient norm that a trainer logs are those of all processes, and whether a weight is finite is agreed upon between
them, so that every process stops at the same step and none waits for another.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather
from safetensors import safe_open
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from eva_stages.core.config.solver_config import CustomLoss
from eva_stages.core.errors import DataError
from eva_stages.solver.job import TrainingJob

LOGGED_NUMBERS = (("loss", "loss"), ("gradient norm", "grad_norm"))
"""Numbers that must be finite in every step, and their names in trainers' logs."""


class StopAtNonFinite(TrainerCallback):
    """Ends training at the first loss, gradient norm or weight that is not finite, before that step's checkpoint is saved."""

    def __init__(self, job: TrainingJob) -> None:
        self._training, self._loss = job.training, job.loss

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if not _agree_on_finite(model.parameters()):
            raise DataError("the policy has weights that are not finite before training starts; check the checkpoint it starts from")

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, model: Any = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs:
            return
        problems = [f"{name} {logs[key]}" for name, key in LOGGED_NUMBERS if not math.isfinite(logs.get(key) or 0)]
        is_first_step = bool(problems) and state.global_step == 1
        if not _agree_on_finite(weight for weight in model.parameters() if weight.requires_grad):
            problems.append("weights that are not finite")
        if not problems:
            return
        raise DataError(
            f"training diverged at step {state.global_step} of {state.max_steps}: {', '.join(problems)}, at learning rate "
            f"{logs.get('learning_rate', self._training.learning_rate):.3g}. {self._advice(is_first_step)}. No policy was saved"
        )

    def _advice(self, is_first_step: bool) -> str:
        if is_first_step:
            function = f"the loss function {self._loss.function}, " if isinstance(self._loss, CustomLoss) else ""
            return (
                f"No weight had been updated yet, so the learning rate is not the cause: check {function}the policy, its "
                f"reference, solver.training.dtype (now {self._training.dtype}) and solver.training.attention"
            )
        return (
            f"Lower solver.training.learning_rate (now {self._training.learning_rate:g}); a longer solver.training.warmup_ratio or a "
            "smaller solver.training.max_grad_norm may help too"
        )


def _agree_on_finite(parameters: Iterable[torch.nn.Parameter]) -> bool:
    """Whether the weights are finite in every process; each process checks its own shards."""
    weights = [parameter.detach() for parameter in parameters if parameter.is_floating_point()]
    shards = [weight.to_local() if isinstance(weight, DTensor) else weight for weight in weights]
    finite = all(bool(shard.isfinite().all()) for shard in shards)
    state = PartialState()
    return bool(gather(torch.tensor([finite], device=state.device)).all()) if state.num_processes > 1 else finite


def non_finite_weight(folder: Path) -> str | None:
    """The name of a weight in a checkpoint's safetensors files that is not finite; None if all are."""
    for name, tensor in _tensors(folder).items():
        if not _read(tensor, name).isfinite().all():
            return name
    return None


def changed_share(start: Path, trained_folder: Path) -> float:
    """The share of the weights of a trained checkpoint that differ from those it started from, 0 to 1.

    Weights that only one of both has, such as a head that is tied in the other, are not compared; without any in common it is 1.

    Raises:
        DataError: if a trained weight is not finite.
    """
    old_files, new_files = _tensors(start), _tensors(trained_folder)
    changed_count = total = 0
    for name, file in new_files.items():
        tensor = _read(file, name)
        if not tensor.isfinite().all():
            raise DataError(
                f"the trained weights {name} are not all finite after rounding to {str(tensor.dtype).removeprefix('torch.')}; lower "
                "solver.training.learning_rate. No policy was saved"
            )
        if name in old_files and (old := _read(old_files[name], name)).shape == tensor.shape:
            changed_count += int((tensor != old.to(tensor.dtype)).sum())
            total += tensor.numel()
    return changed_count / total if total else 1.0


def unchanged_reason(history: Sequence[Mapping[str, Any]], dtype: torch.dtype) -> str:
    """Why a training changed no weight, and what to do, from its log.

    Args:
        history: the log's entries, one per optimiser step.
        dtype: of the saved weights.
    """
    steps = len(history)
    if not any(entry["learning_rate"] for entry in history):
        return (
            f"the learning rate was 0 in all of its {steps} steps, which are warm-up; lower solver.training.batch_size, raise "
            "solver.training.epochs, or set solver.training.warmup_ratio=0"
        )
    if not any(entry.get("grad_norm") for entry in history):
        return "every gradient was 0, so the loss cannot learn from these pairs; use another loss or other pairs"
    return (
        f"its {steps} updates are too small to change {str(dtype).removeprefix('torch.')} weights; raise "
        "solver.training.learning_rate, train for more steps, or start from a checkpoint with float32 weights"
    )


def _tensors(folder: Path) -> dict[str, Path]:
    """Files of a checkpoint by the names of the weights in them."""
    files: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            files |= dict.fromkeys(file.keys(), path)
    return files


def _read(path: Path, name: str) -> torch.Tensor:
    with safe_open(path, framework="pt") as file:
        return file.get_tensor(name)
