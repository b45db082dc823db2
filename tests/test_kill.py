"""SIGKILL in the middle of every kind of stage and at random, of all processes or of one: the same command ends with the same artifacts."""

import random
from pathlib import Path

from benchmarks.chaos import Attempt, command, differences, labels, role, torment
from eva_stages.core.run_folder import Run
from tests.conftest import TINY, events, overrides

HEAVY = ["0-respond", "0-reward", "0-train", "0-eval-judge", "1-evolve"]
QUICK = ["0-prompts", "0-pair", "0-base-score"]
"""One of each kind of stage that is too quick to be cut in two."""


def in_the_middle(run: Path, label: str) -> bool:
    """Whether a stage is at work: a row stage has written a part, training a checkpoint, any other has started."""
    for folder in (run / "work").glob(f"{label}-????????????"):
        if (folder / "parts").is_dir():
            return any((folder / "parts").glob("*.parquet"))
        return "train" not in label or any((folder / "checkpoints").glob("checkpoint-*/trainer_state.json"))
    return False


def test_a_run_killed_in_every_kind_of_stage_ends_with_the_artifacts_of_an_unbroken_run(tiny_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    resume_command = [*command("quickstart", run, []), *overrides(TINY), "--until", HEAVY[-1]]
    order = labels(tiny_run)
    waiting = [label for label in order if label in HEAVY + QUICK]
    starts, attempt = 1, Attempt(resume_command, Run(run))
    while not attempt.ends_within(0.01) or attempt.process.returncode != 0:
        if attempt.process.returncode is not None:
            attempt.check()
            starts, attempt = starts + 1, Attempt(resume_command, Run(run))
            assert starts <= len(HEAVY + QUICK) + 1
        elif waiting and in_the_middle(run, waiting[0]):
            match waiting.pop(0):
                case "0-train":  # eva alone; the trainer must end
                    attempt.kill_one(lambda family: family[0])
                case "0-reward":  # the stage's process alone; its workers must end
                    attempt.kill_one(lambda family: next((process for process in family if role(process, family[0]) == "stage"), family[0]))
                case _:
                    attempt.kill_all()
        elif waiting and manifest_exists(run, waiting[0]):
            waiting.pop(0)  # too quick to be caught this time
    attempt.check()

    log = events(run)
    resumed_stages = {event["stage"] for event in log if event["event"] == "resume"}
    assert len(resumed_stages & set(HEAVY)) >= 0.8 * len(HEAVY), f"the kills came too late: only {resumed_stages} were resumed"
    done_stages: set[str] = set()
    for event in log:
        assert event["event"] == "done" or event["stage"] not in done_stages, f"{event['stage']} was done and ran again"
        done_stages |= {event["stage"]} if event["event"] == "done" else set()
    assert differences(run, tiny_run, order[: order.index(HEAVY[-1]) + 1]) == []


def test_six_kills_at_random_change_nothing_and_leave_no_process(tiny_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    until_pair = [*command("quickstart", run, []), *overrides(TINY), "--until", "pair"]
    kills, starts = torment(until_pair, run, kills=6, mean=4.0, rng=random.Random(7))
    assert kills and starts > 1
    assert differences(run, tiny_run, ["0-prompts", "0-respond", "0-reward", "0-pair"]) == []


def manifest_exists(run: Path, label: str) -> bool:
    return any((run / "stages").glob(f"{label}-????????????/manifest.json"))
