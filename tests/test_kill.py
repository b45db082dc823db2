"""SIGKILL of the whole process group in the middle of every kind of stage: the same command goes on and ends with the same artifacts."""

import json
import shutil
import subprocess
from pathlib import Path

import psutil
from safetensors.numpy import load_file

from tests.conftest import TINY, events, kill_group, manifests, overrides, start_eva


def in_the_middle(run: Path, label: str) -> bool:
    """Whether a stage is at work: a row stage has written a part, training a checkpoint, any other has started."""
    for folder in (run / "work").glob(f"{label}-????????????"):
        if (folder / "parts").is_dir():
            return any((folder / "parts").glob("*.parquet"))
        return "train" not in label or any((folder / "checkpoints").glob("checkpoint-*/trainer_state.json"))
    return False


def test_a_run_killed_in_every_stage_ends_with_the_artifacts_of_an_unbroken_run(tiny_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ("run", "quickstart", "--run-dir", str(run), *overrides(TINY))
    unbroken = manifests(tiny_run)
    first_of_its_name = {manifest["stage"]: f"{manifest['iteration']}-{manifest['stage']}" for manifest in reversed(unbroken.values())}
    order = [event["stage"] for event in events(tiny_run) if event["event"] == "done"]
    heavy = {label for label in first_of_its_name.values() if label.endswith(("respond", "answer", "reward", "evolve", "judge", "train"))}
    quick = {"0-prompts", "0-pair", "1-curate", "0-base-score"}  # one of each kind of stage that is too quick to be cut in two
    waiting = [label for label in order if label in heavy | quick]
    while True:
        process = start_eva(*arguments)
        while running(process) and waiting and not in_the_middle(run, waiting[0]):
            if manifest_exists(run, waiting[0]):
                waiting.pop(0)  # too quick to be caught this time
        if process.poll() is None and waiting:
            kill_group(process)
            waiting.pop(0)
            continue
        _, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        break

    log = events(run)
    resumed = {event["stage"] for event in log if event["event"] == "resume"}
    assert len(resumed & heavy) >= 0.8 * len(heavy), f"the kills came too late: only {resumed} were resumed"

    done: set[str] = set()
    for event in log:
        assert event["event"] == "done" or event["stage"] not in done, f"{event['stage']} was done and ran again"
        done |= {event["stage"]} if event["event"] == "done" else set()

    again = manifests(run)
    assert set(again) == set(unbroken)
    for label, manifest in unbroken.items():
        assert again[label]["fingerprint"] == manifest["fingerprint"]
        if "train" in label:
            assert again[label]["counts"] == manifest["counts"]
            assert_same_weights(folder(run, label), folder(tiny_run, label))
        else:
            assert again[label]["digest"] == manifest["digest"], label
            assert again[label]["counts"] == manifest["counts"], label
    assert list((run / "work").iterdir()) == []


def running(process: subprocess.Popen[str]) -> bool:
    """Whether the process still runs a hundredth of a second from now; the pause leaves the processor to it."""
    try:
        process.wait(timeout=0.01)
    except subprocess.TimeoutExpired:
        return True
    return False


def manifest_exists(run: Path, label: str) -> bool:
    return any((run / "stages").glob(f"{label}-????????????/manifest.json"))


def folder(run: Path, label: str) -> Path:
    (found,) = run.glob(f"stages/{label}-????????????")
    return found


def assert_same_weights(ours: Path, theirs: Path) -> None:
    mine, other = (load_file(path / "model" / "model.safetensors") for path in (ours, theirs))
    assert set(mine) == set(other)
    assert max(abs(mine[name] - other[name]).max() for name in mine) < 1e-6
    logs = [json.loads((path / "model" / "training_log.json").read_text()) for path in (ours, theirs)]
    assert [entry["step"] for entry in logs[0]] == [entry["step"] for entry in logs[1]]


def test_training_ends_when_only_the_process_that_started_it_is_killed(tiny_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    process = start_eva(
        "solver", "quickstart", "--iteration", "0", "--run-dir", str(run), *overrides(TINY | {"solver.training.epochs": 40})
    )
    while running(process) and not in_the_middle(run, "0-train"):
        continue
    family = psutil.Process(process.pid).children(recursive=True)
    trainers = [child for child in family if "eva_stages.solver.training" in " ".join(child.cmdline())]
    assert trainers
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(trainers, timeout=30)
    assert not alive
