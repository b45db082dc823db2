"""Starts training under accelerate and brings its metrics back into the run's progress.

Training has processes of its own that import `eva_stages` only: one forked here, or those that `accelerate launch` starts. It gets one
JSON file with everything it needs, appends its metrics to a file that is read here, and resumes from its own last whole checkpoint.
"""

import json
import math
import sys
import uuid
from importlib import resources
from pathlib import Path
from typing import Any

from eva_stages.core.decoding import decode_json, decode_yaml, short
from eva_stages.core.errors import ConfigError, DamagedError, StageError
from eva_stages.core.fingerprint import tree_digest
from eva_stages.core.ourfiles import read_json
from eva_stages.core.process import run_in_child
from eva_stages.core.runner import Context
from eva_stages.core.stage import WORK
from eva_stages.models.architecture import position_count, vocabulary_size
from eva_stages.solver.machine import launch

METRICS = "metrics.jsonl"
REFERENCE = "reference.json"
"""How far the reference's log-probabilities are, before the first step."""
FEW_CHANGED = 0.01
"""Share of changed weights below which a training is warned of."""
RESULT = "result.json"
TRACKER_HOMES = ("TENSORBOARD_LOGGING_DIR", "WANDB_DIR", "TRACKIO_DIR")
NOT_OF_THE_JOB = ("launch", "starter", "cluster")


def launch_file(launch: str) -> Path:
    """The accelerate launch file of a packaged name or a path.

    Raises:
        ConfigError: if there is none, with the packaged ones.
    """
    packaged = resources.files("configs") / "accelerate"
    path = Path(launch) if Path(launch).is_file() else Path(str(packaged / f"{launch}.yaml"))
    if not path.is_file():
        names = sorted(entry.name.removesuffix(".yaml") for entry in packaged.iterdir() if entry.name.endswith(".yaml"))
        raise ConfigError([f"solver.training.runtime.launch: there is no launch file {launch!r}; packaged: {', '.join(names)}"])
    return path


def launch_settings(path: Path) -> dict[str, Any]:
    """What a launch file says.

    Raises:
        ConfigError: if it is no mapping in YAML, or has another number of processes or machines than a whole one.
    """
    place = f"solver.training.runtime.launch: {path}"
    try:
        settings, _ = decode_yaml(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, OSError) as error:
        raise ConfigError([f"{place}: {error}"]) from error
    if not isinstance(settings, dict):
        raise ConfigError([f"{place} holds no mapping; write one with `accelerate config`"])
    for name in ("num_processes", "num_machines"):
        if not isinstance(count := settings.get(name, 1), int) or count < 1:
            raise ConfigError([f"{place}: {name} is {short(count)}; give a whole number from 1"])
    return settings


def process_count(path: Path) -> int:
    """How many training processes a launch file starts."""
    return int(launch_settings(path).get("num_processes", 1))


def machine_count(path: Path) -> int:
    """On how many machines a launch file's processes run."""
    return int(launch_settings(path).get("num_machines", 1))


def starts_one(path: Path) -> bool:
    """Whether a launch file starts one process and nothing around it."""
    kind = launch_settings(path).get("distributed_type", "NO")
    return kind in ("NO", False) and process_count(path) == machine_count(path) == 1  # unquoted, YAML's NO is false


def same_vocabulary(policy: Path, reference: Path) -> None:
    """Raises:
    ConfigError: if the policy's tokens mean nothing to the reference, so that their log-probabilities cannot be compared.
    """
    sizes = [vocabulary_size(folder) for folder in (policy, reference)]
    if sizes[0] != sizes[1]:
        raise ConfigError(
            [
                f"solver.reference: the policy's vocabulary has {sizes[0]} tokens and the reference's {sizes[1]}, so their "
                "log-probabilities cannot be compared; take solver.reference=previous"
            ]
        )


def training_length(max_length: int, policy: Path) -> int:
    """Tokens of the longest pair: the recipe's, or the policy's positions where those are fewer."""
    return min(max_length, position_count(policy) or max_length)


def train(context: Context, runtime: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """Run training to its end.

    Args:
        runtime: what `TrainingRuntime` holds, and the address of a Ray `cluster` that may start it.
        settings: what `eva_stages.solver.train` reads (see there).

    Raises:
        StageError: with the end of the training log, if the process fails.
    """
    file = launch_file(runtime["launch"]).resolve()
    work, inputs = context.work.resolve(), {name: path.resolve() for name, path in context.inputs.items()}  # for other machines
    same_vocabulary(inputs["policy"], inputs["reference"])
    job: dict[str, Any] = {
        **settings,
        "max_length": training_length(settings["max_length"], inputs["policy"]),
        "policy": str(inputs["policy"]),
        "reference": str(inputs["reference"]),
        **{name: str(inputs[name]) for name in ("pairs", "prompts") if name in inputs},
        "inputs": {WORK: str(work), **{name: str(path) for name, path in inputs.items()}},
        "reference_digest": tree_digest(inputs["reference"]),
        "work": str(work),
        "cache": str(context.run.resolve() / "cache"),
        "label": f"{context.run.name}/{context.work.name}",
        **{name: value for name, value in runtime.items() if name not in NOT_OF_THE_JOB},
    }
    job_file, log = work / "job.json", work / "training.log"
    job_file.write_text(json.dumps(job, indent=2), encoding="utf-8")
    environment, gently = _environment(context, runtime, file), bool(runtime["starter"])
    for earlier in (REFERENCE, RESULT):
        (work / earlier).unlink(missing_ok=True)
    begun = (work / METRICS).stat().st_size if (work / METRICS).is_file() else 0

    def show() -> None:
        _show(context, job, begun)

    if starts_one(file) and not runtime["starter"]:
        arguments = {"job_file": str(job_file), "launch_file": str(file), "environment": environment}
        run_in_child("eva_stages.solver.train:train_here", arguments, log, show)
    else:
        launch(_command(runtime, file, job_file, environment), environment, log, show, gently)
    show()
    if not (work / RESULT).is_file():
        raise StageError(f"training ended with exit code 0 before it was done; its output is in {log}")
    facts = read_json(work / RESULT, dict)
    if facts["changed_share"] < FEW_CHANGED:
        context.task.note(
            f"warning: only {facts['changed_share']:.2%} of the policy's weights changed; smaller updates were rounded away or the "
            "gradients were 0. Raise solver.training.learning_rate, or start from a checkpoint with float32 weights"
        )
    return facts


def _command(runtime: dict[str, Any], file: Path, job_file: Path, environment: dict[str, str]) -> list[str]:
    """What runs training by `accelerate launch`, here or, by a starter, on every machine."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(file)]
    module = ["-m", "eva_stages.solver.train", str(job_file)]
    if not runtime["starter"]:
        return [*command, *module]
    order = {"command": command, "job": module, "environment": environment, "cluster": runtime["cluster"], **_machines(file)}
    return _order(job_file.parent, runtime["starter"], order)


def _environment(context: Context, runtime: dict[str, Any], file: Path) -> dict[str, str]:
    """What the training processes find in their environment besides what is there."""
    trackers = str(context.run.resolve() / "trackers" / context.work.name)
    homes = dict.fromkeys(TRACKER_HOMES, trackers) if runtime["report_to"] else {}
    # accelerate passes a launch file's use_cpu on only where it starts a single process
    processor = {"ACCELERATE_USE_CPU": "true"} if launch_settings(file).get("use_cpu") else {}
    # libraries that format tracebacks wrap the message, which is read back from the log
    return {**homes, **processor, "TOKENIZERS_PARALLELISM": "false", "COLUMNS": "2000"}


def _machines(file: Path) -> dict[str, int]:
    machines, on_cpu = machine_count(file), launch_settings(file).get("use_cpu")
    return {"machines": machines, "gpus": 0 if on_cpu else process_count(file) // machines}


def _order(work: Path, starter: str, order: dict[str, Any]) -> list[str]:
    """Write down what each machine is to run; returns the command that starts them all."""
    path = work / "order.json"
    path.write_text(
        json.dumps({**order, "work": str(work), "meeting": str(work / f"meeting-{uuid.uuid4().hex}.json")}, indent=2), encoding="utf-8"
    )
    return [sys.executable, "-m", f"eva_stages.solver.{'machines' if starter == 'ray' else 'slurm'}", str(path)]


def last_entry(metrics: Path, start: int = 0) -> dict[str, Any] | None:
    """The last whole line that a training wrote into its file of metrics after byte `start`; None if there is none."""
    try:
        lines = metrics.read_bytes()[start:].split(b"\n")[:-1]
        entry = decode_json(lines[-1]) if lines else None
    except (FileNotFoundError, ValueError):
        return None
    return entry if _is_entry(entry) else None


def _is_entry(entry: Any) -> bool:
    """Whether it has what is shown of a training that is under way."""
    known = [entry.get(name) for name in ("step", "total_steps", "loss")] if isinstance(entry, dict) else [None]
    return all(isinstance(value, int | float) for value in known)


def _show(context: Context, job: dict[str, Any], begun: int) -> None:
    """Tell how far training is; `begun`: bytes of metrics that are an earlier attempt's."""
    last = last_entry(context.work / METRICS, begun)
    if last is not None:
        said = [f"{name} {last[name]:.3f}" for name in ("loss", "reward") if last.get(name) is not None]
        context.task.mark(last["step"])
        context.task.update(last["step"], last["total_steps"], last.get("num_tokens", 0), "  ".join(said))
    elif (context.work / REFERENCE).is_file():
        try:
            told = read_json(context.work / REFERENCE, dict)
            pairs, total = int(told["pairs"]), int(told["of"])
        except (DamagedError, KeyError, TypeError, ValueError):  # it is written again in a moment
            return
        steps = math.ceil(total / job["batch_size"]) * job["epochs"]
        context.task.update(0, steps, detail=f"reference {pairs:,} of {total:,} pairs")
