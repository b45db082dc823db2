"""Two stages of a run at a time: what waits for what, what a failure and a limit mean for the other stage."""

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from eva_stages.core.devices import cpu_cores, has_accelerator
from eva_stages.core.errors import StageError
from eva_stages.core.job_context import check_interruption, interruption, job_environment
from eva_stages.core.overlapping import MOST_BYTES, can_overlap, execute_overlapping
from eva_stages.core.progress import Reporter
from eva_stages.core.run_folder import Run
from eva_stages.core.runner import LOCAL, Context
from eva_stages.core.stage import RUN, WORK, Check, FunctionStage, Input, Outside, Stage, Use
from tests.core.test_checks import stage as limited_stage

MEETING = threading.Barrier(2)
BEGIN_EVENT = threading.Event()


def meet(context: Context) -> dict[str, Any]:
    """Return when two stages are here at the same time."""
    MEETING.wait(60)
    return write(context)


def write(context: Context) -> dict[str, Any]:
    context.artifact.mkdir(parents=True)
    (context.artifact / "environment.json").write_text(json.dumps(job_environment()), encoding="utf-8")
    return {}


def wait_for_interruption(context: Context) -> dict[str, Any]:
    BEGIN_EVENT.set()
    check_interruption(60)
    raise AssertionError("the stage was not interrupted")


def fail_beside(context: Context) -> dict[str, Any]:
    BEGIN_EVENT.wait(60)
    raise ValueError("it is odd")


def interrupt_again(context: Context) -> dict[str, Any]:
    """As a user who presses Ctrl-C once more while the stage ends."""
    BEGIN_EVENT.set()
    interruption.wait(60)
    os.kill(os.getpid(), signal.SIGINT)
    return write(context)


def stage_of(name: str, function: Any, *inputs: Stage, iteration: int = 0, checks: tuple[Check, ...] = ()) -> FunctionStage:
    sources = {str(place): source for place, source in enumerate(inputs)}
    return FunctionStage(name, iteration, sources, function=Use(f"{__name__}:{function.__name__}"), checks=checks)


def execute(folder: Path, *stages: Stage) -> list[tuple[str, str]]:
    """The events of the run, each with its stage."""
    run = Run(folder / "run", folder / ".store")
    run.create()
    try:
        execute_overlapping(run, stages, Reporter(), LOCAL, repair=False)
    finally:
        events = [(event["event"], event["stage"]) for event in run.events()]
    return events


def test_two_stages_run_at_a_time_and_what_no_training_needs_leaves_the_cores_to_the_training(tmp_path: Path) -> None:
    prompts = stage_of("prompts", write)
    training, score = stage_of("train", meet, prompts), stage_of("score", meet, prompts)
    events = execute(tmp_path, training, score)
    assert events[:2] == [("start", "0-prompts"), ("done", "0-prompts")] and len(events) == 6
    run = Run(tmp_path / "run")
    environments = [json.loads((run.folder(stage) / "environment.json").read_text(encoding="utf-8")) for stage in (training, score)]
    assert environments == [{}, {"EVA_NICENESS": "5"}]
    assert execute(tmp_path, training, score) == events


def test_without_a_training_no_stage_leaves_the_cores_to_others(tmp_path: Path) -> None:
    score = stage_of("score", write)
    execute(tmp_path, score)
    assert json.loads((Run(tmp_path / "run").folder(score) / "environment.json").read_text(encoding="utf-8")) == {}


def test_a_failed_stage_interrupts_the_other_one_and_nothing_else_starts(tmp_path: Path) -> None:
    waiting, failing = stage_of("train", wait_for_interruption), stage_of("score", fail_beside)
    with pytest.raises(StageError, match=r"stage 0-score failed: .*it is odd"):
        execute(tmp_path, waiting, failing, stage_of("health", write))
    events = [(event["event"], event["stage"]) for event in Run(tmp_path / "run").events()]
    assert sorted(events[:2]) == [("start", "0-score"), ("start", "0-train")]
    assert events[2:] == [("failed", "0-score"), ("interrupted", "0-train")]
    assert not interruption.is_set()


def test_a_second_interruption_does_not_revoke_the_first(tmp_path: Path) -> None:
    try:
        with pytest.raises(KeyboardInterrupt):
            execute(tmp_path, stage_of("train", interrupt_again), stage_of("score", fail_beside))
        assert interruption.is_set()
    finally:
        interruption.clear()


def test_nothing_starts_before_a_stage_that_may_stop_the_run_is_complete(tmp_path: Path) -> None:
    hot_stage = limited_stage(90, 80, stop=True)
    with pytest.raises(StageError, match="the run stops after iteration"):
        execute(tmp_path, hot_stage, stage_of("prompts", write, iteration=1))
    assert all(event["stage"] == hot_stage.label for event in Run(tmp_path / "run").events())


@pytest.mark.parametrize("folder", [WORK, RUN])
def test_stages_that_pay_for_calls_run_one_after_the_other(folder: str) -> None:
    free_stage = stage_of("score", write)
    paid_stage = FunctionStage("score", 0, {}, function=Use("a:b", {"llm": Use("c:d", {}, {"journal": Input(folder)})}))
    assert can_overlap([free_stage], LOCAL) == (cpu_cores() > 1 and not has_accelerator())
    assert not can_overlap([free_stage, paid_stage], LOCAL)


def test_large_models_run_one_after_the_other(tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    with model.open("wb") as stream:
        stream.truncate(MOST_BYTES + 1)
    stage = FunctionStage("score", 0, {"policy": Outside("model", model, "digest")}, function=Use(f"{__name__}:write"))
    assert not can_overlap([stage], LOCAL)
