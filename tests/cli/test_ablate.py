"""`eva ablate`: two arms with two seeds on a tiny Lettercraft, interrupted once and killed once on the way, and what is made of it."""

import json
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from eva_stages import api as eva
from eva_stages.api import reporters as eva_progress
from eva_stages.core.garbage import find_garbage, runs_in
from eva_stages.core.study_record import generated_tokens, read_study
from eva_stages.views.run_list import run_list
from eva_stages.views.study_sentences import UNDECIDED_VERDICT
from eva_stages.views.study_status import study_status
from tests.conftest import TINY, events, kill_group, manifests, run_eva, start_eva
from tests.killing import running

SMALL = {
    **TINY,
    "prompts.size": 16,
    "evaluation.benchmarks.0.prompts": 12,
    "health.answers": 0,
    "solver.training.checkpoints_per_epoch": 1,
}
ARMS = {"eva": {}, "uniform": {"creator.metric": "uniform"}}
FAILING = "def grade(messages, response, reference):\n    raise ValueError('no grade')\n"
GRADING = "def grade(messages, response, reference):\n    return float(sum(map(ord, str(response))))\n"
pytestmark = pytest.mark.xdist_group("study")


def write_study(path: Path, **fields: object) -> Path:
    study = {"question": "Does it help?", "base": "quickstart", "set": SMALL, "seeds": 2, "measure": "lettercraft.sampled", "arms": ARMS}
    path.write_text(yaml.safe_dump({**study, **fields}, sort_keys=False))
    return path


def interrupt_at(process: subprocess.Popen[str], is_time: Callable[[], bool], number: int) -> int:
    """Send a signal to all processes of a command at a certain time; returns the exit code."""
    while running(process) and not is_time():
        pass
    assert process.poll() is None, process.communicate()
    os.killpg(process.pid, number)
    process.communicate()
    return process.returncode


def all_events(folder: Path) -> list[dict]:
    return [event for path in sorted(folder.glob("*/*/events.jsonl")) for event in events(path.parent)]


def at_stage(folder: Path, label: str) -> Callable[[], bool]:
    return lambda: any(event["event"] == "start" and event["stage"] == label for event in all_events(folder))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the complete study."""
    home = tmp_path_factory.mktemp("home")
    write_study(home / "tiny.yaml")
    folder = home / "runs" / "tiny"
    command = ("ablate", "tiny.yaml", "--jobs", "2")
    assert interrupt_at(start_eva(*command, cwd=home), at_stage(folder, "0-train"), signal.SIGINT) == 130
    assert [event["cause"] for event in all_events(folder) if event["event"] == "failed"] == []
    assert interrupt_at(start_eva(*command, cwd=home), at_stage(folder, "1-evolve"), signal.SIGKILL) == -signal.SIGKILL
    output = run_eva(*command, "--json", cwd=home)
    document = json.loads(output.stdout)
    assert [run["state"] for run in document["runs"]] == ["done"] * 4
    assert "4 of 4 runs done" in output.stderr
    return folder


def test_each_stage_is_computed_once_for_all_runs_that_need_it(study: Path) -> None:
    done_counts = Counter((event["stage"], event["fingerprint"]) for event in all_events(study) if event["event"] == "done")
    assert set(done_counts.values()) == {1}
    labels = Counter(stage for stage, _ in done_counts)
    assert labels["0-questions"] == 1, "it has no seed"
    assert labels["0-prompts"] == labels["0-respond"] == labels["0-train"] == 2, "one for each seed"
    assert labels["1-creator-respond"] == 2 and labels["1-train"] == 4
    assert all(len(manifests(study / arm / seed)) == 30 for arm in ARMS for seed in ("42", "43"))


def test_what_was_complete_before_a_kill_is_not_computed_again(study: Path) -> None:
    starts = Counter(event["fingerprint"] for event in all_events(study) if event["event"] in ("start", "resume"))
    assert max(starts.values()) <= 3 and sum(count - 1 for count in starts.values()) <= 4, "two stages at work at each of two kills"


def test_the_study_is_listed_shown_and_none_of_its_artifacts_is_garbage(study: Path) -> None:
    listing = run_list(study.parent)
    assert [(entry["complete_runs"], len(entry["runs"])) for entry in listing["studies"]] == [(4, 4)]
    assert len(runs_in(study.parent)) == len(runs_in(study)) == 4 and listing["stores"][0]["unused_bytes"] == 0
    assert find_garbage(study.parent)[0] == [] == find_garbage(study)[0]
    status = study_status(study)
    assert [entry["state"] for entry in status["runs"]] == ["done"] * 4 and status["locked_by"] is None
    assert (study / "eva" / "42" / "work").readlink() == Path("../../../.store/work")


def test_the_plan_counts_shared_stages_once(study: Path) -> None:
    plan = json.loads(run_eva("plan", "tiny.yaml", "--set", "creator.evolve.generations=3", "--json", cwd=study.parents[1]).stdout)
    assert plan["stages"] == 120 and plan["distinct_stages"] < 90
    assert plan["complete_stages"] == plan["distinct_stages"] - plan["to_do"]["stages"] > 30, "the base round is complete"
    assert plan["unshared"]["stages"] >= plan["to_do"]["stages"] > plan["to_do"]["unmeasured"]
    assert [entry["shared_stages"] > 0 for entry in plan["arms"]] == [True, True]


def test_a_budget_of_tokens_ends_a_run_or_fails_it_where_it_cannot_be_reached(study: Path) -> None:
    home = study.parents[1]
    base_tokens = generated_tokens(manifest for label, manifest in manifests(study / "eva" / "42").items() if label.startswith("0-"))
    assert base_tokens > 0
    write_study(home / "short.yaml", seeds=[42], budget={"generated_tokens": base_tokens + 1})
    run_eva("ablate", "short.yaml", cwd=home)
    assert {path.name for path in (home / "runs/short/eva/42/stages").iterdir()} == {
        path.name for path in (study / "eva/42/stages").iterdir()
    }
    write_study(home / "long.yaml", seeds=[42], budget={"generated_tokens": 1e9, "iterations": 1})
    output = run_eva("ablate", "long.yaml", cwd=home, code=1)
    assert "2 of 2 runs failed" in output.stderr
    assert "of 1,000,000,000 generated tokens; raise budget.iterations" in output.stderr
    computed_stages = [event for event in all_events(home / "runs/long") if event["event"] == "start"]
    assert not computed_stages, "all stages are those of the other study"


def test_two_studies_at_once_compute_each_stage_once_and_a_failing_arm_stops_no_other(tmp_path: Path) -> None:
    (tmp_path / "grading.py").write_text(FAILING)
    reward = {"kind": "verifier", "function": f"{tmp_path}/grading.py:grade"}
    arms = {"firm": {}, "soft": {"solver.loss.beta": 0.5}, "broken": {"reward": reward}}
    write_study(tmp_path / "base.yaml", seeds=1, arms=arms, budget={"iterations": 0}, contrasts=[["firm", "soft"], ["firm", "broken"]])
    command = ("ablate", "base.yaml", "--trust", "--jobs", "2", "--store", "store", "--study-dir")
    processes = [start_eva(*command, name, cwd=tmp_path) for name in ("first", "second")]
    for process in processes:
        _, err = process.communicate(timeout=600)
        assert process.returncode == 1 and "1 of 3 runs failed" in err and "stage 0-reward failed" in err, err
    folders = [tmp_path / "first", tmp_path / "second"]
    done_counts = Counter(event["fingerprint"] for folder in folders for event in all_events(folder) if event["event"] == "done")
    assert set(done_counts.values()) == {1}
    states = [[entry["state"] for entry in study_status(folder)["runs"]] for folder in folders]
    assert states == [["done", "done", "failed"]] * 2
    results = json.loads((folders[0] / "results.json").read_text())
    assert results["contrasts"][1]["verdict"] == UNDECIDED_VERDICT
    (tmp_path / "grading.py").write_text(GRADING)
    run_eva(*command, "first", cwd=tmp_path)
    assert [entry["state"] for entry in study_status(folders[0])["runs"]] == ["done"] * 3


def test_a_study_that_is_in_use_is_left_alone(study: Path) -> None:
    home = study.parents[1]
    process = start_eva("ablate", "tiny.yaml", "--seeds", "3", cwd=home)
    while running(process) and not (study / "eva" / "44").is_dir():
        pass
    output = run_eva("ablate", "tiny.yaml", cwd=home, code=1)
    assert "in use by process" in output.stderr
    kill_group(process)
    assert read_study(study).seeds == (42, 43, 44)


def test_python_runs_and_reads_the_study_as_the_command_does(study: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing is computed again, and nothing is printed."""
    home = tmp_path / "home"
    shutil.copytree(study.parents[1], home, symlinks=True)
    folder = home / "runs" / "tiny"
    recorded_events, document = all_events(folder), json.loads((folder / "results.json").read_text())
    progress_events: list[eva_progress.Progress] = []
    opened_study = eva.run_study(home / "tiny.yaml", folder, store=folder.parent / ".store", jobs=2, progress=progress_events.append)
    assert len(all_events(folder)) == len(recorded_events)
    assert any("4 of 4 runs done" in (event.message or "") for event in progress_events)
    assert opened_study.document()["contrasts"] == document["contrasts"]
    (contrast,) = opened_study.contrasts().to_dict("records")
    assert (contrast["a"], contrast["b"], contrast["mean"]) == ("eva", "uniform", document["contrasts"][0]["mean"])
    scores = opened_study.scores()
    assert list(zip(scores["arm"], scores["seed"], scores["score"], strict=True)) == [
        (run["arm"], run["seed"], run["score"]) for run in document["runs"]
    ]
    assert opened_study.run("eva", scores["seed"][0]).folder == folder / "eva" / str(scores["seed"][0])
    assert capfd.readouterr() == ("", "")
