"""Progress: the whole run and every running stage, with rate and time left, on a terminal of 80 columns and without one."""

import io
import re
from pathlib import Path

import pytest

from eva_stages.core import progress
from eva_stages.core.logs import MOST_LOG_BYTES, LogReader, keep_logs, logs_in
from eva_stages.core.progress import LOADING, STARTING, WAITING, Reporter, Task
from eva_stages.core.progress_lines import ProgressLines, StageLine
from eva_stages.core.run_progress import RunProgress
from eva_stages.core.stage import FunctionStage, Use
from eva_stages.core.terminal import Terminal, Verbosity, set_verbosity


def stage(name: str, iteration: int) -> FunctionStage:
    return FunctionStage(name=name, iteration=iteration, function=Use("builtins:dict", {"iteration": iteration}), inputs={})


STAGES = [stage(name, iteration) for iteration in range(2) for name in ("respond", "train")]


@pytest.fixture(autouse=True)
def normal_verbosity() -> None:
    set_verbosity(Verbosity.NORMAL)


def set_clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the progress reads; a test sets it."""
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    return clock


@pytest.mark.parametrize(
    ("phase", "expected_seconds", "state"),
    [(STARTING, None, "starting for 8.0 s"), (LOADING, 30.0, "loading for 8.0 s, about 22 s left"), (WAITING, None, "waiting for 8.0 s")],
)
def test_a_stage_without_a_rate_shows_its_phase_and_what_is_expected(
    monkeypatch: pytest.MonkeyPatch, phase: str, expected_seconds: float | None, state: str
) -> None:
    clock = set_clock(monkeypatch)
    task = Task(Terminal(), "0-respond", "rows", phase, expected_seconds)
    clock[0] = 8.0
    assert task.state == state


def test_a_stage_with_a_rate_shows_when_it_ends_and_resumed_rows_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = set_clock(monkeypatch)
    task = Task(Terminal(), "0-respond", "rows", "resuming")
    task.update(24, 40)
    assert task.state == "resuming for 0.0 s, 24/40 rows"
    clock[0] = 10.0
    task.mark(24)
    clock[0] = 14.0
    task.update(32, 40, 800, "calls 4")
    assert task.state == "32/40 rows, 2.0 rows/s, 4.0 s left, calls 4"


def test_the_reference_pass_of_training_has_its_own_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = set_clock(monkeypatch)
    task = Task(Terminal(), "0-train", "steps", STARTING)
    task.prepare("reference", 0, 480, "pairs")
    clock[0] = 2.0
    task.prepare("reference", 60, 480, "pairs")
    assert task.state == "reference 60/480 pairs, 30.0 pairs/s, 14 s left"
    task.mark(0)
    clock[0] = 4.0
    task.update(4, 12, detail="loss 0.693")
    assert task.state == "4/12 steps, 2.0 steps/s, 4.0 s left, loss 0.693"


def test_the_run_adds_up_what_is_left_from_plans_earlier_stages_and_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = set_clock(monkeypatch)
    run = RunProgress(STAGES, {STAGES[1].fingerprint[:12]: 20.0})
    assert run.remaining({}) == (20.0, 3)
    clock[0] = 10.0
    run.complete(STAGES[0], seconds=10.0, computed_seconds=10.0)
    assert (run.done_count, run.remaining({})) == (1, (30.0, 1))
    assert run.remaining({"0-train": 5.0, "1-train": 15.0}) == (30.0, 0)


def test_plain_lines_have_the_run_and_the_stage(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "PLAIN_SECONDS", -1.0)
    reporter = Reporter()
    with reporter.run(STAGES, {}), reporter.task("0-respond") as task:
        task.update(3, 12)
        reporter._beat(task)
    assert re.fullmatch(r"0-respond: 3/12 rows, [\d.]+ s; stages 0 of 4, [\d.]+ s, time left not known yet\n", capsys.readouterr().err)


@pytest.mark.parametrize("width", [40, 80, 120])
def test_live_lines_fit_and_leave_out_the_least_important_parts(width: int) -> None:
    parts = ["1,024/20,000 rows", "12.3 rows/s", "26 min left", "1,234 tokens/s", "loss 0.693"]
    stages = [StageLine("0-base-answer", parts), StageLine("0-train", ["waiting " * 20])]
    lines = ProgressLines(12, 30, "1.4 min, about 2.1 min left", stages)
    terminal = Terminal(file=io.StringIO(), width=width, force_terminal=True, no_color=True)
    terminal.print(lines)
    text = re.sub(r"\x1b\[[\d;]*m", "", terminal.file.getvalue())
    assert max(map(len, text.splitlines())) <= width
    assert "stages 12 of 30  " in text and "about 2.1 min left" in text and "1,024/20,000 rows" in text
    assert ("1.4 min" in text, "26 min left" in text, "loss 0.693" in text) == (width >= 80, width >= 80, width == 120)


def test_quiet_prints_what_the_user_has_to_know_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    set_verbosity(Verbosity.QUIET)
    reporter = Reporter()
    reporter.log("0-train: done")
    reporter.say("0-train: warning: few weights changed")
    assert capsys.readouterr().err == "0-train: warning: few weights changed\n"


def test_verbose_prints_the_new_lines_of_a_stages_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_verbosity(Verbosity.VERBOSE)
    log = tmp_path / "pipeline.log"
    log.write_text("of an earlier attempt\n")
    with Reporter().task("0-respond") as task:
        task.log = LogReader(tmp_path)
        with log.open("a") as stream:
            stream.write("loading: 0 %\rloading: 100 %\nready\nhalf a li")
    assert capsys.readouterr().err.splitlines() == ["0-respond: loading: 100 %", "0-respond: ready"]


def test_logs_are_kept_with_the_artifact_up_to_a_size(tmp_path: Path) -> None:
    work, artifact = tmp_path / "work", tmp_path / "artifact"
    work.mkdir()
    artifact.mkdir()
    (work / "training.log").write_text("".join(f"step {number}\n" for number in range(50_000)))
    (work / "step.log").write_text("")
    keep_logs(work, artifact)
    assert [log.name for log in logs_in(artifact)] == ["training.log"]
    text = (artifact / "training.log").read_text()
    assert len(text) <= MOST_LOG_BYTES + 100 and text.endswith("step 49999\n")
    assert re.match(r"\[[\d,]+ earlier bytes are not kept\]\nstep \d+\n", text)
