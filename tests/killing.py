"""Rerunning stages of a finished run with a kill in the middle of each."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from eva_stages.core.store import STORE
from tests.conftest import artifact_folder, kill_group, start_eva
from tests.test_kill import in_the_middle, manifest_exists


def rerun_with_kills(run: Path, labels: list[str], arguments: tuple[str, ...], old_artifacts: Path, **environment: Any) -> set[str]:
    """Move the stages' artifacts to `old_artifacts` and run the command until it is done, with one SIGKILL in each stage.

    Args:
        labels: in the order in which they run.

    Returns:
        The labels of the stages that were killed; the other stages ended before the kill.
    """
    shutil.rmtree(run.parent / STORE, ignore_errors=True)
    for label in labels:
        shutil.move(artifact_folder(run, label), old_artifacts / label)
    waiting, killed_labels = list(labels), set()
    while True:
        process = start_eva(*arguments, **environment)
        while running(process) and waiting and not in_the_middle(run, waiting[0]):
            if manifest_exists(run, waiting[0]):
                waiting.pop(0)
        if process.poll() is None and waiting:
            kill_group(process)
            killed_labels.add(waiting.pop(0))
            continue
        _, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        return killed_labels


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
