"""Commands with a kill in the middle of their stages."""

import contextlib
import json
import shutil
import subprocess
import threading
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path

import psutil
from safetensors.numpy import load_file

from eva_stages.core.store import STORE
from tests.conftest import Output, artifact_folder, eva_here


def rerun_with_kills(run: Path, labels: list[str], arguments: tuple[str, ...], old_artifacts: Path) -> set[str]:
    """Move the stages' artifacts to `old_artifacts` and run the command until it is done, with one SIGKILL in each stage.

    Args:
        labels: in the order in which they run.

    Returns:
        The labels of the stages that were killed; the other stages ended before the kill.
    """
    shutil.rmtree(run.parent / STORE, ignore_errors=True)
    for label in labels:
        shutil.move(artifact_folder(run, label), old_artifacts / label)
    return run_with_kills(run, labels, arguments)


def run_with_kills(run: Path, labels: list[str], arguments: tuple[str, ...]) -> set[str]:
    """Run a command until it is done, with one SIGKILL of the stage's process and of all that it started in each of the stages.

    Returns:
        The labels of the stages that were killed; the other stages ended before the kill.
    """
    waiting, killed_labels = list(labels), set()
    while True:
        output, was_killed = run_with_a_kill(arguments, lambda: is_time(run, waiting))
        if not was_killed or output.returncode == 0:  # with a kill: the stage had reported its end before it
            assert output.returncode == 0, output.stderr
            return killed_labels
        assert output.returncode == 1 and "was killed by signal 9" in output.stderr, output.stderr
        killed_labels.add(waiting.pop(0))


def is_time(run: Path, waiting: list[str]) -> bool:
    """Whether one of the waiting stages is at work, which becomes the first of them; those that ended before are dropped."""
    waiting[:] = [label for label in waiting if not manifest_exists(run, label)]
    reached_labels = [label for label in waiting if in_the_middle(run, label)]
    waiting.sort(key=lambda label: label not in reached_labels[:1])
    return bool(reached_labels)


def run_with_a_kill(arguments: tuple[str, ...], is_time: Callable[[], bool]) -> tuple[Output, bool]:
    """Run a command in this process and kill the process of its stage at a certain time.

    Returns:
        The output, and whether there was a kill.
    """
    end_event, victims = threading.Event(), list[psutil.Process]()

    def kill() -> None:
        while not victims and not end_event.wait(timeout=0.01):
            if is_time():
                victims.extend(kill_stage_processes())

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        output = eva_here(arguments, Path.cwd())
    finally:
        end_event.set()
        killer.join()
    assert not stage_processes(), "a process outlived its stage"
    return output, bool(victims)


def stage_processes() -> list[psutil.Process]:
    """The processes of a stage that this process runs: what its fork server has started."""
    server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    return psutil.Process(server).children(recursive=True) if server else []


def kill_stage_processes() -> list[psutil.Process]:
    killed_processes = stage_processes()
    for process in killed_processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    return killed_processes


def in_the_middle(run: Path, label: str) -> bool:
    """Whether a stage is at work: a row stage has written a part, training a checkpoint, any other has started."""
    for folder in (run / "work").glob(f"{label}-????????????"):
        if (folder / "parts").is_dir():
            return any((folder / "parts").glob("*.parquet"))
        return "train" not in label or any((folder / "checkpoints").glob("checkpoint-*/trainer_state.json"))
    return False


def manifest_exists(run: Path, label: str) -> bool:
    return any((run / "stages").glob(f"{label}-????????????/manifest.json"))


def running(process: subprocess.Popen[str]) -> bool:
    """Whether the process still runs after a hundredth of a second. Waiting leaves the processor to the process."""
    try:
        process.wait(timeout=0.01)
    except subprocess.TimeoutExpired:
        return True
    return False


def assert_same_weights(first_artifact: Path, second_artifact: Path) -> None:
    first_weights, second_weights = (load_file(path / "model" / "model.safetensors") for path in (first_artifact, second_artifact))
    assert set(first_weights) == set(second_weights)
    assert max(abs(first_weights[name] - second_weights[name]).max() for name in first_weights) < 1e-6
    logs = [json.loads((path / "model" / "training_log.json").read_text()) for path in (first_artifact, second_artifact)]
    assert [entry["step"] for entry in logs[0]] == [entry["step"] for entry in logs[1]]
