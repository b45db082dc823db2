"""Starts training under `accelerate launch` and brings its metrics back into the run's progress.

Training is a process of its own that imports `eva_stages` only. It gets one JSON file with everything it needs, appends its
metrics to a file that is read here, and resumes from its own last whole checkpoint.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from eva_stages.core.errors import ConfigError, StageError
from eva_stages.core.fingerprint import tree_digest
from eva_stages.core.process import kill_tree
from eva_stages.core.runner import Context
from eva_stages.core.stage import WORK

METRICS = "metrics.jsonl"
POLL_SECONDS = 0.3
TRACKER_HOMES = ("TENSORBOARD_LOGGING_DIR", "WANDB_DIR", "TRACKIO_DIR")


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


def process_count(path: Path) -> int:
    """How many training processes a launch file starts."""
    return int(yaml.safe_load(path.read_text()).get("num_processes", 1))


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


def vocabulary_size(folder: Path) -> int | None:
    """Rows of a checkpoint's embeddings, by its configuration; None if that does not say."""
    config = json.loads((folder / "config.json").read_text())
    return config.get("vocab_size", config.get("text_config", {}).get("vocab_size"))


def train(context: Context, runtime: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """Run training to its end.

    Args:
        runtime: what `TrainingRuntime` holds.
        settings: what `eva_stages.solver.training` reads (see there).

    Raises:
        StageError: with the end of the training log, if the process fails.
    """
    file = launch_file(runtime["launch"])
    same_vocabulary(context.inputs["policy"], context.inputs["reference"])
    job: dict[str, Any] = {
        **settings,
        "policy": str(context.inputs["policy"]),
        "reference": str(context.inputs["reference"]),
        **{name: str(context.inputs[name]) for name in ("pairs", "prompts") if name in context.inputs},
        "inputs": {WORK: str(context.work), **{name: str(path) for name, path in context.inputs.items()}},
        "reference_digest": tree_digest(context.inputs["reference"]),
        "work": str(context.work),
        "cache": str(context.run / "cache"),
        "label": f"{context.run.name}/{context.work.name}",
        **{name: value for name, value in runtime.items() if name != "launch"},
        "launcher": os.getpid(),
        "host": socket.gethostname(),
    }
    (context.work / "job.json").write_text(json.dumps(job, indent=2))
    log = context.work / "training.log"
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(file), "-m", "eva_stages.solver.training"]
    trackers = str(context.run / "trackers" / context.work.name)
    homes = dict.fromkeys(TRACKER_HOMES, trackers) if runtime["report_to"] else {}
    # libraries that format tracebacks wrap the message, which is read back from the log
    environment = {**os.environ, **homes, "TOKENIZERS_PARALLELISM": "false", "COLUMNS": "2000"}
    with log.open("a") as stream:
        process = subprocess.Popen(
            [*command, str(context.work / "job.json")], stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment
        )
        try:
            while process.poll() is None:
                _show(context)
                time.sleep(POLL_SECONDS)
        finally:
            kill_tree(process.pid)
            process.wait()
    if process.returncode != 0:
        raise StageError(_cause(process.returncode, log))
    _show(context)
    facts: dict[str, Any] = json.loads((context.work / "result.json").read_text())
    return facts


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The metric lines of a training; where a resumed attempt repeated steps, the later line counts."""
    lines = path.read_text().splitlines() if path.is_file() else []
    steps: dict[int, dict[str, Any]] = {}
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:  # cut off by a kill
            continue
        steps[entry["step"]] = entry
    return [steps[step] for step in sorted(steps)]


def _show(context: Context) -> None:
    metrics = read_metrics(context.work / METRICS)
    if metrics:
        last = metrics[-1]
        said = [f"{name} {last[name]:.3f}" for name in ("loss", "reward") if last.get(name) is not None]
        context.task.mark(last["step"])
        context.task.update(last["step"], last["total_steps"], last.get("num_tokens", 0), "  ".join(said))


def _cause(code: int, log: Path) -> str:
    if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return f"training was killed (out of memory?); its output is in {log}"
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line and not line.startswith(" ") and "CalledProcessError" not in line]
    return f"training ended with code {code}: {errors[-1] if errors else (lines or ['no output'])[-1]}; its output is in {log}"
