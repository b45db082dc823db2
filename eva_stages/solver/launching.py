"""Starts training under accelerate and reports its metrics as the run's progress.

Training runs in separate processes: one forked here, or those that `accelerate launch` starts. It reads one JSON file (`job.py`), appends
its metrics to a file that is read here, and resumes from its last complete checkpoint.
"""

import json
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from eva_stages.core.config.solver_config import JobLoss, OnlineDPO, Training
from eva_stages.core.decoding import decode_json
from eva_stages.core.errors import ConfigError, DamagedError, StageError
from eva_stages.core.fingerprint import tree_digest
from eva_stages.core.named_functions import FunctionCode
from eva_stages.core.ourfiles import read_json
from eva_stages.core.patches import processor_environment
from eva_stages.core.process import run_in_child
from eva_stages.core.progress import LOADING, RESUMING, STARTING
from eva_stages.core.runner import Context
from eva_stages.core.stage import WORK
from eva_stages.models.architecture import position_count, vocabulary_size
from eva_stages.solver.job import ONLINE_FIGURES, OnlineInterval, OnPolicy, TrainingJob
from eva_stages.solver.launch_file import LaunchFile, read_launch_file
from eva_stages.solver.machine import free_port, launch

METRICS = "metrics.jsonl"
REFERENCE = "reference.json"
"""Progress of the reference's log-probabilities, before the first step."""
UNCUT = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""Values at which these settings of sampling exclude no token and change no probability."""
FEW_CHANGED_WEIGHTS = 0.01
"""Share of changed weights below which a warning is shown."""
JOB = "job.json"
RESULT = "result.json"
TRACKER_HOMES = ("TENSORBOARD_LOGGING_DIR", "WANDB_DIR", "TRACKIO_DIR")


def same_vocabulary(policy: Path, reference: Path) -> None:
    """Raises:
    ConfigError: if policy and reference have different vocabularies, so that their log-probabilities cannot be compared.
    """
    sizes = [vocabulary_size(folder) for folder in (policy, reference)]
    if sizes[0] != sizes[1]:
        raise ConfigError(
            [
                f"solver.reference: the policy's vocabulary has {sizes[0]} tokens and the reference's {sizes[1]}, so their "
                "log-probabilities cannot be compared; set solver.reference=previous"
            ]
        )


def training_length(max_length: int, policy: Path) -> int:
    """Tokens of the longest pair: the recipe's, or the policy's positions where those are fewer."""
    return min(max_length, position_count(policy) or max_length)


def training_job(
    work: Path,
    inputs: dict[str, Path],
    cache: Path,
    label: str,
    runtime: dict[str, Any],
    *,
    loss: dict[str, Any],
    training: dict[str, Any],
    seed: int,
    system_prompt: str | None,
    date: str | None,
    loss_function: str | FunctionCode | None = None,
    on_policy: dict[str, Any] | None = None,
    keeps_adapter: bool = False,
    online: dict[str, Any] | None = None,
) -> TrainingJob:
    """The job of a training stage.

    Args:
        work, inputs, cache, label, keeps_adapter: see `TrainingJob`.
        runtime, loss, training, seed, system_prompt, date, loss_function, on_policy, online: the stage's arguments, see `train`.
    """
    same_vocabulary(inputs["policy"], inputs["reference"])
    length = training_length(training["max_length"], inputs["policy"])
    if runtime.get("server"):
        loss = {**loss, "runtime": {**loss["runtime"], "server": runtime["server"]}}
    if loss_function is not None:
        loss = {**loss, "function": loss_function if isinstance(loss_function, str) else loss_function.spec}
    return TrainingJob(
        loss=TypeAdapter(JobLoss).validate_python(loss),
        loss_function=loss_function,
        training=Training(**{**training, "max_length": length, "runtime": runtime["training"]}),
        on_policy=OnPolicy(**on_policy, unscored_limit=runtime["unscored"]) if on_policy else None,
        seed=seed,
        system_prompt=system_prompt,
        date=date,
        inputs={WORK: work, **inputs},
        reference_digest="-".join(tree_digest(inputs[name]) for name in ("reference", "adapter") if name in inputs),
        work=work,
        cache=cache,
        label=label,
        keeps_adapter=keeps_adapter,
        online=OnlineInterval(**online, limits=runtime["limits"], health=runtime["health"]) if online else None,
    )


def train(
    context: Context,
    runtime: dict[str, Any],
    *,
    loss: dict[str, Any],
    training: dict[str, Any],
    seed: int,
    system_prompt: str | None,
    date: str | None,
    loss_function: str | FunctionCode | None = None,
    on_policy: dict[str, Any] | None = None,
    keeps_adapter: bool = False,
    online: dict[str, Any] | None = None,
    section: str = "solver.training",
) -> dict[str, Any]:
    """Run training to its end.

    Args:
        runtime: `training`, the fields of `TrainingRuntime`; `cluster`, the address of a Ray cluster that may start the training;
            `unscored`, a limit (see `OnPolicy`); `server`, the address of a vLLM server to sample with, if there is one; online
            `limits` and `health`, see `OnlineInterval`.
        loss, training: the recipe's sections, `training` without its `runtime`.
        loss_function: that of a custom loss, whose section is without it: the file's place is no part of the stage's identity.
        on_policy: the other fields of `OnPolicy`.
        online: the other fields of `OnlineInterval`; None offline.
        keeps_adapter: see `TrainingJob`.
        section: the recipe's section with its settings, for messages.

    Raises:
        StageError: with the end of the training log, if the process fails.
    """
    work, inputs = context.work.resolve(), {name: path.resolve() for name, path in context.inputs.items()}  # for other machines
    label = f"{context.run.name}/{context.work.name}"
    arguments: dict[str, Any] = {"loss": loss, "training": training, "seed": seed, "system_prompt": system_prompt, "date": date}
    arguments |= {"loss_function": loss_function, "on_policy": on_policy, "keeps_adapter": keeps_adapter, "online": online}
    job = training_job(work, inputs, context.run.resolve() / "cache", label, runtime, **arguments)
    job.write(work / JOB)
    log = work / "training.log"
    file = read_launch_file(job.training.runtime.launch)
    environment, starter = environment_of(job, file, context.run.resolve() / "trackers" / context.work.name), job.training.runtime.starter
    for earlier in (REFERENCE, RESULT):
        (work / earlier).unlink(missing_ok=True)
    begun_bytes = (work / METRICS).stat().st_size if (work / METRICS).is_file() else 0

    if note := cut_sampling(job):
        context.task.note(note)

    def show() -> None:
        context.report_notices()
        _show(context, job, begun_bytes)

    if file.is_single and not starter:
        arguments = {"job_file": str(work / JOB), "launch_file": str(file.path), "environment": environment}
        run_in_child("eva_stages.solver.train:train_here", arguments, log, show)
    else:
        launch(_command(job, file, environment, runtime["cluster"]), environment, log, show, gently=bool(starter))
    show()
    if not (work / RESULT).is_file():
        raise StageError(f"training ended with exit code 0 before it had finished; its output is in {log}")
    facts = read_json(work / RESULT, dict)
    if facts["changed_share"] < FEW_CHANGED_WEIGHTS:
        context.task.note(
            f"warning: only {facts['changed_share']:.2%} of the weights changed: smaller updates were lost to rounding, or the "
            f"gradients were 0. Raise {section}.learning_rate, or start from a checkpoint with float32 weights"
        )
    return facts


def cut_sampling(job: TrainingJob) -> str | None:
    """A warning if responses are sampled from another distribution than the one whose gradient a loss is."""
    if job.on_policy is None or isinstance(job.loss, OnlineDPO):
        return None
    sampling = job.on_policy.sampling
    cuts = [f"{name} {sampling[name]}" for name, neutral in UNCUT.items() if (sampling[name] or 0) != neutral]
    if not cuts:
        return None
    return (
        f"warning: responses are sampled with {' and '.join(cuts)}, and the gradient of {job.loss.kind} is that of the distribution "
        "without; leave such settings out of policy.generator for training that is exactly on-policy"
    )


def _command(job: TrainingJob, file: LaunchFile, environment: dict[str, str], cluster: str) -> list[str]:
    """The command that runs training by `accelerate launch`, here or, with a starter, on every machine."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(file.path)]
    module = ["-m", "eva_stages.solver.train", str(job.work / JOB)]
    starter = job.training.runtime.starter
    if starter is None:
        return [*command, "--main_process_port", str(free_port()), *module]  # trainings that start at the same time need different ones
    order = {
        "command": command,
        "job": module,
        "environment": environment,
        "cluster": cluster,
        "machines": file.machines,
        "gpus": file.gpus_per_machine,
        "work": str(job.work),
        "meeting": str(job.work / f"meeting-{uuid.uuid4().hex}.json"),
    }
    path = job.work / "order.json"
    path.write_text(json.dumps(order, indent=2), encoding="utf-8")
    return [sys.executable, "-m", f"eva_stages.solver.{'machines' if starter == 'ray' else 'slurm'}", str(path)]


def environment_of(job: TrainingJob, file: LaunchFile, trackers: Path) -> dict[str, str]:
    """Variables that are added to the environment of the training processes; `trackers`: folder for what trackers write."""
    homes = dict.fromkeys(TRACKER_HOMES, str(trackers)) if job.training.runtime.report_to else {}
    # libraries that format tracebacks wrap the message, which is read back from the log
    return {**homes, **processor_environment(file.use_cpu), "TOKENIZERS_PARALLELISM": "false", "COLUMNS": "2000"}


def last_entry(metrics: Path, start: int = 0) -> dict[str, Any] | None:
    """The last complete line that a training wrote to its metrics file after byte `start`; None if there is none."""
    try:
        lines = metrics.read_bytes()[start:].split(b"\n")[:-1]
        entry = decode_json(lines[-1]) if lines else None
    except (FileNotFoundError, ValueError):
        return None
    names = ("step", "total_steps", "loss")
    return entry if isinstance(entry, dict) and all(isinstance(entry.get(name), int | float) for name in names) else None


def details_of(entry: Mapping[str, Any]) -> list[str]:
    """Figures of an optimiser step for people: loss and reward; online also the buffer and what came from it."""
    details = [f"{name} {entry[name]:.3f}" for name in ("loss", "reward") if entry.get(name) is not None]
    online = {name.removeprefix(ONLINE_FIGURES): value for name, value in entry.items() if name.startswith(ONLINE_FIGURES) and value}
    for name, form in (("buffer", "buffer {:.0f}"), ("evolved_share", "evolved {:.0%}"), ("late", "late {:.0f}")):
        details += [form.format(online[name])] if name in online else []
    return details


def _show(context: Context, job: TrainingJob, begun_bytes: int) -> None:
    """Report the progress of training; `begun_bytes`: bytes of metrics that belong to an earlier attempt."""
    last = last_entry(context.work / METRICS, begun_bytes)
    if last is not None:
        context.task.mark(last["step"])
        context.task.update(last["step"], last["total_steps"], last.get("num_tokens", 0), "  ".join(details_of(last)))
    elif (context.work / REFERENCE).is_file():
        try:
            progress = read_json(context.work / REFERENCE, dict)
            pairs, total = int(progress["pairs"]), int(progress["of"])
        except (DamagedError, KeyError, TypeError, ValueError):  # it is being rewritten
            return
        context.task.prepare("reference", pairs, total, "pairs")
    elif context.task.phase in (STARTING, RESUMING):
        context.task.phase = LOADING
