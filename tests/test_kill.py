"""SIGKILL in the middle of every kind of stage and at random, of all processes or of one: the same command ends with the same artifacts."""

import random
from pathlib import Path

from benchmarks.chaos import Attempt, command, labels, torment
from benchmarks.run_differences import differences
from eva_stages.core.run_folder import Run
from tests.conftest import TINY, events, overrides
from tests.killing import in_the_middle, rerun_with_kills, run_with_kills

ATTEMPTS = 5
WITH_EVA = ["0-respond", "0-train"]
"""Stages in which eva is killed too; in the others only the process of the stage and its workers."""
HEAVY = ["0-respond", "0-reward", "0-train", "0-eval-judge", "1-evolve"]
QUICK = ["0-prompts", "0-pair", "0-base-score"]
"""One of each kind of stage that is too quick to be cut in two."""


def test_a_run_killed_in_every_kind_of_stage_ends_with_the_artifacts_of_an_unbroken_run(tiny_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    python_words, options = command("quickstart", run, []), overrides(TINY)
    order = labels(tiny_run)
    run_with_kills(run, ["0-prompts"], (*python_words[3:], *options, "--until", "0-prompts"))
    resume_command = [*python_words, *options, "--until", HEAVY[-1]]
    for label in WITH_EVA:
        attempt = Attempt(resume_command, Run(run))
        while not in_the_middle(run, label):
            assert not attempt.ends_within(0.01)
        if label == "0-train":  # eva alone; the trainer must end
            assert attempt.kill_one(lambda family: family[0])
        else:
            assert attempt.kill_all()
        attempt.check()
    run_with_kills(run, [label for label in order if label in {*HEAVY, *QUICK} - {*WITH_EVA}], tuple(resume_command[3:]))

    log = events(run)
    done_stages: set[str] = set()
    for event in log:
        assert event["event"] == "done" or event["stage"] not in done_stages, f"{event['stage']} was done and ran again"
        done_stages |= {event["stage"]} if event["event"] == "done" else set()
    killed_stages = {event["stage"] for event in log if event["event"] == "resume"}
    for number in range(ATTEMPTS):  # a stage of a fraction of a second can end before it is killed
        if missed_stages := [label for label in HEAVY if label not in killed_stages]:
            old_artifacts = tmp_path / f"old-{number}"
            old_artifacts.mkdir()
            killed_stages |= rerun_with_kills(run, missed_stages, tuple(resume_command[3:]), old_artifacts)
    assert len(killed_stages & set(HEAVY)) >= 0.8 * len(HEAVY), f"the kills came too late: only {killed_stages} were killed"
    assert differences(run, tiny_run, order[: order.index(HEAVY[-1]) + 1]) == []


def test_three_kills_at_random_change_nothing_and_leave_no_process(tiny_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    until_pair = [*command("quickstart", run, []), *overrides(TINY), "--until", "pair"]
    kills, starts = torment(until_pair, run, kills=3, mean=4.0, rng=random.Random(7))
    assert kills and starts > 1
    assert differences(run, tiny_run, ["0-prompts", "0-respond", "0-reward", "0-pair"]) == []
