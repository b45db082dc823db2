"""The command line as a person uses it, on the tiny run."""

import json
import re
import shutil
import signal
from pathlib import Path

import pytest

from tests.conftest import TINY, events, kill_group, manifests, overrides, run_eva, start_eva
from tests.killing import in_the_middle, running

STAGES = [
    "0-prompts", "0-respond", "0-reward", "0-pair", "0-train", "0-questions", "0-base-answer", "0-base-reward", "0-base-score",
    "0-eval-answer", "0-eval-reward", "0-eval-judge", "0-eval-score", "0-health", "1-creator-respond", "1-creator-reward", "1-inform",
    "1-select", "1-evolve", "1-curate", "1-mix", "1-respond", "1-reward", "1-pair", "1-train", "1-eval-answer", "1-eval-reward",
    "1-eval-judge", "1-eval-score", "1-health",
]  # fmt: skip


def copied_run(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copy"))


def test_a_run_leaves_every_stage_whole_and_the_work_folder_empty(tiny_run: Path) -> None:
    assert set(manifests(tiny_run)) == set(STAGES)
    assert list((tiny_run / "work").iterdir()) == []
    assert sorted(event["stage"] for event in events(tiny_run) if event["event"] == "done") == sorted(STAGES)


def test_counts_add_up_from_stage_to_stage(tiny_run: Path) -> None:
    stage_manifests = manifests(tiny_run)
    n, counts = TINY["prompts.size"], {label: manifest["counts"] for label, manifest in stage_manifests.items()}
    for label in ("0-respond", "0-reward", "1-creator-respond", "1-creator-reward", "1-inform", "1-mix", "1-respond", "1-reward"):
        assert stage_manifests[label]["rows"] == n, label
    assert counts["0-respond"]["responses"] == n * 4 and counts["0-respond"]["output_tokens"] > 0
    assert stage_manifests["1-select"]["rows"] == n // 4 and stage_manifests["1-evolve"]["rows"] == n == counts["1-evolve"]["evolutions"]
    curate = counts["1-curate"]
    assert curate["evolved"] == n == sum(count for reason, count in curate.items() if reason != "evolved")
    assert curate["kept"] == stage_manifests["1-curate"]["rows"]
    assert counts["1-mix"]["evolved"] + counts["1-mix"]["buffer"] == n
    assert sum(counts["1-pair"].values()) == n and counts["1-pair"]["pair"] == stage_manifests["1-pair"]["rows"]
    assert counts["1-train"]["pairs"] == stage_manifests["1-pair"]["rows"]
    assert stage_manifests["1-eval-judge"]["rows"] == 2 * TINY["evaluation.benchmarks.0.prompts"]


def test_a_finished_run_computes_nothing_and_prints_one_json_document(tiny_run: Path) -> None:
    earlier_events = events(tiny_run)
    result = run_eva("run", "quickstart", "--run-dir", str(tiny_run), *overrides(TINY), "--json")
    document = json.loads(result.stdout)
    assert events(tiny_run) == earlier_events
    assert [iteration["iteration"] for iteration in document["iterations"]] == [0, 1] and all(
        iteration["done"] for iteration in document["iterations"]
    )
    assert document["iterations"][1]["held_out"]["sampled_gain"]["n"] == 24
    assert (Path(document["policy"]) / "model.safetensors").is_file()


def test_the_table_names_every_figure(tiny_run: Path) -> None:
    output = run_eva("run", "quickstart", "--run-dir", str(tiny_run), *overrides(TINY)).stdout
    for word in ("prompts", "evolved", "reward", "gap", "pairs", "loss", "margin", "time", "held out", "win rate", "rejected"):
        assert word in output
    assert str(tiny_run / "stages") in output


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ("creator.mix.evolved_share=0.5", "1-mix"),
        ("evaluation.benchmarks.0.confidence=0.9", "0-base-score"),
        ("solver.training.runtime.micro_batch_size=4", None),
        ("limits.empty=0.9", None),
        ("health.kl=3", None),
    ],
)
def test_a_changed_field_plans_exactly_the_stages_downstream_of_it(tiny_run: Path, change: str, first: str | None) -> None:
    result = run_eva("plan", "quickstart", "--run-dir", str(tiny_run), *overrides(TINY), "--set", change, "--json")
    todo = {entry["stage"] for entry in json.loads(result.stdout)["stages"] if entry["state"] == "to do"}
    if first is None:
        assert todo == set()
    elif first == "1-mix":
        assert todo == set(STAGES[STAGES.index("1-mix") :])
    else:
        assert todo == {stage for stage in STAGES if stage.endswith(("-score", "-health"))}


def test_a_changed_field_reruns_exactly_the_planned_stages(tiny_run: Path, tmp_path: Path) -> None:
    run = copied_run(tiny_run, tmp_path)
    event_count = len(events(run))
    run_eva("creator", "quickstart", "--iteration", "1", "--run-dir", str(run), *overrides(TINY), "--set", "creator.selection.kind=greedy")
    ran = [event["stage"] for event in events(run)[event_count:] if event["event"] == "start"]
    assert ran == ["1-select", "1-evolve", "1-curate", "1-mix"]


def test_of_two_runs_started_together_one_outlives_a_kill_of_the_other_and_every_stage_is_computed_once(
    tiny_run: Path, tmp_path: Path
) -> None:
    def arguments(name: str) -> tuple[str, ...]:
        return ("run", "quickstart", "--run-dir", name, *overrides(TINY), "--until", "pair")

    processes = {name: start_eva(*arguments(name), cwd=tmp_path) for name in ("one", "other")}
    logs = [tmp_path / name / "events.jsonl" for name in processes]
    while not (all(log.exists() for log in logs) and in_the_middle(tmp_path / "one", "0-respond")):
        assert all(map(running, processes.values()))
    start = ("start", "0-respond")
    starting_runs = {name for name in processes if start in [(event["event"], event["stage"]) for event in events(tmp_path / name)]}
    (killed_run,) = starting_runs
    (survivor,) = processes.keys() - starting_runs
    kill_group(processes[killed_run])
    _, err = processes[survivor].communicate(timeout=600)
    assert processes[survivor].returncode == 0, err
    assert "0-respond: resumes" in err
    run_eva(*arguments(killed_run), cwd=tmp_path)
    kinds = [(event["event"], event["stage"]) for name in processes for event in events(tmp_path / name)]
    for label in ("0-prompts", "0-respond", "0-reward", "0-pair"):
        assert kinds.count(("done", label)) == kinds.count(("reused", label)) == 1
    first = manifests(tiny_run)
    for name in processes:
        run = manifests(tmp_path / name)
        assert list(run) == ["0-pair", "0-prompts", "0-respond", "0-reward"]
        assert all(manifest["digest"] == first[label]["digest"] for label, manifest in run.items())
    status = json.loads(run_eva("status", str(tmp_path / "one"), "--json").stdout)
    states = {entry["stage"]: entry["state"] for entry in status["stages"]}
    assert states["0-pair"] == "done" and states["0-train"] == "to do" and status["locked_by"] is None
    output = run_eva("run", "--until", "evolv", "--run-dir", str(tmp_path / "one"), code=2).stderr
    assert "no stage 'evolv'" in output and "creator-respond" in output


def test_a_second_eva_on_the_same_run_says_who_holds_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = start_eva("run", "quickstart", "--run-dir", str(run), *overrides(TINY))
    while not (run / "events.jsonl").exists():
        assert first.poll() is None
    output = run_eva("run", "quickstart", "--run-dir", str(run), *overrides(TINY), code=1).stderr
    assert re.search(rf"is in use by process {first.pid} on ", output)
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=60)
    assert first.returncode == 130 and "interrupted" in err and "eva run quickstart" in err


def test_plan_writes_nothing_and_counts_rows(tmp_path: Path) -> None:
    run = tmp_path / "run"
    document = json.loads(run_eva("plan", "quickstart", "--run-dir", str(run), *overrides(TINY), "--json").stdout)
    assert not run.exists()
    sizes = {entry["stage"]: entry["rows"] for entry in document["stages"]}
    assert list(sizes) == STAGES and sizes["1-select"] == 10 and sizes["1-evolve"] == 40 and sizes["0-respond"] == 40


def test_recipes_are_listed_shown_copied_and_validated(tmp_path: Path) -> None:
    assert "quickstart" in run_eva("recipes", "ls").stdout
    names = [entry["name"] for entry in json.loads(run_eva("recipes", "ls", "--json").stdout)["recipes"]]
    assert "quickstart" in names
    copy = tmp_path / "mine" / "recipe.yaml"
    run_eva("recipes", "copy", "quickstart", str(copy))
    assert copy.read_text() == run_eva("recipes", "show", "quickstart").stdout
    assert "exists" in run_eva("recipes", "copy", "quickstart", str(copy), code=2).stderr
    assert json.loads(run_eva("validate", str(copy), "--json").stdout) == {"valid": True, "faults": [], "notes": []}
    bad = run_eva("validate", str(copy), "--set", "policy.model=./nowhere", "--set", "reward.kind=verifier", code=2)
    assert "reward.function: is required and missing" in bad.stderr
