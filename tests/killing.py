"""Making stages of a finished run again, killed in the middle of each."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from tests.conftest import kill_group, start_eva
from tests.test_kill import in_the_middle, manifest_exists


def made_again(run: Path, labels: list[str], arguments: tuple[str, ...], aside: Path, **environment: Any) -> set[str]:
    """Put the stages' artifacts aside and run the command until it is done, with a SIGKILL of all its processes in each of the stages.

    Args:
        labels: in the order in which they run.

    Returns:
        The stages that were killed at work; the others were too quick.
    """
    for label in labels:
        shutil.move(folder(run, label), aside / label)
    waiting, killed = list(labels), set()
    while True:
        process = start_eva(*arguments, **environment)
        while running(process) and waiting and not in_the_middle(run, waiting[0]):
            if manifest_exists(run, waiting[0]):
                waiting.pop(0)
        if process.poll() is None and waiting:
            kill_group(process)
            killed.add(waiting.pop(0))
            continue
        _, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        return killed


def running(process: subprocess.Popen[str]) -> bool:
    """Whether the process still runs a hundredth of a second from now; the pause leaves the processor to it."""
    try:
        process.wait(timeout=0.01)
    except subprocess.TimeoutExpired:
        return True
    return False


def folder(run: Path, label: str) -> Path:
    (found,) = run.glob(f"stages/{label}-????????????")
    return found


def assert_same_weights(ours: Path, theirs: Path) -> None:
    mine, other = (load_file(path / "model" / "model.safetensors") for path in (ours, theirs))
    assert set(mine) == set(other)
    assert max(abs(mine[name] - other[name]).max() for name in mine) < 1e-6
    logs = [json.loads((path / "model" / "training_log.json").read_text()) for path in (ours, theirs)]
    assert [entry["step"] for entry in logs[0]] == [entry["step"] for entry in logs[1]]
