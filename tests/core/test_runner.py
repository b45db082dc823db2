"""What the runner does with stages that are done: nothing, or a repair, and never more than is needed."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from eva_stages.core.errors import DamagedError, StageError
from eva_stages.core.progress import Reporter
from eva_stages.core.run_folder import Run
from eva_stages.core.runner import Context, execute
from eva_stages.core.stage import FunctionStage, Stage, Use


def write(context: Context, text: str) -> dict:
    """Write the text after the inputs' texts; the second stage adds the content of the run's file `dice`, as a random result would."""
    context.artifact.mkdir()
    inputs = [(path / "text").read_text() for path in context.inputs.values()]
    dice = (context.run / "dice").read_text() if text == "second" else ""
    (context.artifact / "text").write_text("".join([*inputs, text, dice]))
    return {}


def stage(name: str, *upstream: Stage) -> FunctionStage:
    return FunctionStage(
        name, 0, {each_stage.name: each_stage for each_stage in upstream}, function=Use(f"{__name__}:write", {"text": name})
    )


FIRST = stage("first")
SECOND = stage("second", FIRST)
THIRD = stage("third", SECOND)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    new_run = Run(tmp_path / "run")
    new_run.create()
    (new_run.root / "dice").write_text("1")
    execute(new_run, [THIRD], Reporter())
    return new_run


def repair_run(run: Run) -> tuple[list[str], str]:
    """The stages that a repair ran, and its output."""
    event_count, reporter = len(run.events()), Reporter()
    reporter.console = Console(file=io.StringIO(), width=400)
    execute(run, [THIRD], reporter, repair=True)
    ran = [event["stage"] for event in run.events()[event_count:] if event["event"] == "done"]
    assert isinstance(reporter.console.file, io.StringIO)
    return ran, reporter.console.file.getvalue()


def flip(run: Run, stage: Stage) -> None:
    path = run.folder(stage) / "text"
    content = bytearray(path.read_bytes())
    content[1] ^= 1
    path.write_bytes(content)


def test_a_flipped_byte_is_named_and_only_its_stage_is_rebuilt(run: Run) -> None:
    earlier_digests = {each_stage.name: run.digest(each_stage) for each_stage in (FIRST, SECOND, THIRD)}
    flip(run, FIRST)
    with pytest.raises(DamagedError, match=f"{FIRST.folder} has changed since it was built"):
        execute(run, [THIRD], Reporter())
    ran, output = repair_run(run)
    assert ran == ["0-first"], "its dependents have not changed, because it has not"
    assert {each_stage.name: run.digest(each_stage) for each_stage in (FIRST, SECOND, THIRD)} == earlier_digests
    (event,) = [event for event in run.events() if event["event"] == "repair"]
    assert event["stage"] == "0-first" and "has changed" in event["cause"] and event["aside"] == f"damaged/{FIRST.folder}.1"
    assert "0-first: " in output and str(run.root / event["aside"]) in output
    execute(run, [THIRD], Reporter())


def test_a_rebuilt_artifact_with_other_content_has_its_dependents_rebuilt(run: Run) -> None:
    (run.root / "dice").write_text("2")
    flip(run, SECOND)
    assert repair_run(run)[0] == ["0-second", "0-third"]
    assert (run.folder(THIRD) / "text").read_text() == "firstsecond2third"


def test_an_artifact_without_its_manifest_is_rebuilt(run: Run) -> None:
    (run.stages / THIRD.folder / "manifest.json").unlink()
    with pytest.raises(DamagedError, match="cannot be read"):
        execute(run, [THIRD], Reporter())
    assert repair_run(run)[0] == ["0-third"]


def test_a_sound_run_is_not_repaired(run: Run) -> None:
    assert repair_run(run) == ([], "") and not (run.root / "damaged").exists()


def test_a_stage_killed_between_its_commit_and_its_end_is_logged_and_tidied_up(run: Run) -> None:
    log = run.root / "events.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    run.workplace(THIRD)
    execute(run, [THIRD], Reporter())
    assert [event["stage"] for event in run.events() if event["event"] == "done"][-1] == "0-third"
    assert list(run.work.iterdir()) == []


def log_and_fail_once(context: Context) -> dict:
    """Write a log, and fail at the first attempt."""
    with (context.work / "step.log").open("a") as stream:
        stream.write("what a library printed\n")
    if not (context.run / "failed").exists():
        (context.run / "failed").touch()
        raise StageError("the rewards are missing")
    return write(context, "logged")


def test_an_error_names_the_log_which_stays_beside_the_artifact_and_may_be_deleted(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.create()
    logged_stage = FunctionStage("logged", 0, {}, function=Use(f"{__name__}:log_and_fail_once"))
    log = run.work / logged_stage.folder / "step.log"
    with pytest.raises(StageError, match=f"stage 0-logged failed: the rewards are missing; its log: {log}$"):
        execute(run, [logged_stage], Reporter())
    execute(run, [logged_stage], Reporter())
    (kept_log,) = run.stages.glob("0-logged-*/step.log")
    assert kept_log.read_text() == "what a library printed\n" * 2
    kept_log.unlink()
    execute(run, [logged_stage], Reporter())
    assert [event["event"] for event in run.events()] == ["start", "failed", "resume", "done"]
