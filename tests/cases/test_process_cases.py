"""Every started process ends; if it ends too early, the stage ends with the cause, and a rerun loses nothing (CASES.md, K7)."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest
from distilabel.steps import Step, StepInput
from distilabel.typing import StepOutput

from eva_stages.core.errors import StageError
from eva_stages.core.job_context import job
from eva_stages.core.process import run_in_child
from eva_stages.core.process_ending import ending
from eva_stages.core.progress import Reporter
from eva_stages.core.ray_engine import Steps
from eva_stages.core.rows import SCHEMAS, prompt_row
from eva_stages.core.run_folder import Run
from eva_stages.core.runner import execute
from eva_stages.core.stage import WORK, Input, Outside, RowStage, Use, as_data
from eva_stages.core.tables import read_table, write_rows
from eva_stages.solver.machine import failure, launch
from tests.steps import CritiqueStep

ROWS, BAD = 12, 6


class SilentError(Exception):
    """An error without a message."""


class StubbornError(Exception):
    """An error that can be neither pickled nor printed."""

    def __init__(self, *parts: object) -> None:
        super().__init__(*parts)
        self.lock = multiprocessing.get_context("fork").Lock()

    def __reduce__(self) -> Any:
        raise TypeError("not to be pickled")

    def __str__(self) -> str:
        raise ValueError("not to be printed")


def deeper(depth: int) -> int:
    return deeper(depth + 1) + 1


def leave(how: str) -> None:
    """End this process, or another one, in the way that `how` names."""
    kind, _, value = how.partition(" ")
    match kind:
        case "signal":
            os.kill(os.getpid(), getattr(signal, value))
            signal.pause()
        case "_exit":
            os._exit(int(value))
        case "exit":
            sys.exit(int(value))
        case "parent":
            os.kill(os.getppid(), getattr(signal, value))
            signal.pause()
        case "manager":
            os.kill(min(child.pid for child in psutil.Process(os.getppid()).children()), getattr(signal, value))
            signal.pause()
        case "server":
            os.kill(psutil.Process(os.getppid()).ppid(), getattr(signal, value))
            signal.pause()
        case "deeper":
            deeper(0)
        case "thread":
            threading.Thread(target=leave, args=("MemoryError",), name="helper").start()
            signal.pause()
        case _:
            raise {
                "KeyboardInterrupt": KeyboardInterrupt,
                "GeneratorExit": GeneratorExit,
                "MemoryError": MemoryError,
                "SilentError": SilentError,
                "StubbornError": StubbornError,
                "lines": ValueError(f"first line\nsecond line {os.environ.get('SOME_API_KEY', '')}"),
            }[kind]


WORKER = r"worker of step ends_0 \(process \d+\)"
STAGE = r"the stage's process"
LOG = r"its output is in .+pipeline.log"
THREAD_ENDS = {
    "signal SIGTERM": rf"{STAGE} was killed by signal 15 \(SIGTERM\); {LOG}",
    "signal SIGKILL": rf"{STAGE} was killed by signal 9 \(SIGKILL; out of memory\?\); {LOG}",
    "_exit 0": rf"{STAGE} ended with exit code 0; {LOG}",
    "_exit 3": rf"{STAGE} ended with exit code 3; {LOG}",
    "exit 0": r"SystemExit: 0 in step ends_0; the full trace is in .+pipeline.log",
    "KeyboardInterrupt": r"KeyboardInterrupt in step ends_0; the full trace",
    "StubbornError": r"StubbornError: \(no message: ValueError\) in step ends_0",
    "lines": r"ValueError: first line second line \[removed\] in step ends_0",
    "thread": r"MemoryError in the thread helper",
    "load _exit 0": rf"{STAGE} ended with exit code 0; {LOG}",
    "load signal SIGINT": r"KeyboardInterrupt in step ends_0; the full trace",
    "signal SIGINT": r"KeyboardInterrupt in step ends_0; the full trace",
    "parent SIGKILL": r"the fork server was killed",
}
"""Ends of a stage whose steps are threads of one process."""
PROCESS_ENDS = {
    "signal SIGTERM": rf"{WORKER} was killed by signal 15 \(SIGTERM\) before its work was finished",
    "signal SIGKILL": rf"{WORKER} was killed by signal 9 \(SIGKILL; out of memory\?\)",
    "_exit 0": rf"{WORKER} ended with exit code 0 before its work was finished",
    "_exit 3": rf"{WORKER} ended with exit code 3 before",
    "exit 0": r"SystemExit: 0 in step ends_0; the full trace is in .+pipeline.log",
    "KeyboardInterrupt": r"KeyboardInterrupt in step ends_0; the full trace",
    "StubbornError": r"StubbornError: \(no message: ValueError\) in step ends_0",
    "lines": r"ValueError: first line second line \[removed\] in step ends_0",
    "thread": r"MemoryError in the thread helper",
    "load _exit 0": rf"{WORKER} ended with exit code 0",
    "parent SIGTERM": rf"{STAGE} was killed by signal 15 \(SIGTERM\); {LOG}",
    "manager SIGKILL": r"the queue manager \(process \d+\) was killed by signal 9",
    "server SIGKILL": r"the fork server was killed",
}
"""Ends of a stage with a process per copy of a step."""
KEY = "sk-never-to-be-seen-4711"


class Ends(CritiqueStep):
    """Ends a process in the next of the `ends` each time it reaches a certain row or is loaded, until there are none left.

    Attributes:
        replicas, device: as those of a model; with several copies the steps run in processes of their own.
    """

    ends: list[str]
    replicas: int = 1
    device: str = "cpu"

    def load(self) -> None:
        super().load()
        self._end("load ")

    def _end(self, prefix: str) -> None:
        number = len(list(Path(self.work).glob("attempt-*")))
        how = [*self.ends, ""][number]
        if how and how.startswith("load ") == bool(prefix):
            (Path(self.work) / f"attempt-{number}").touch()
            leave(how.removeprefix(prefix))

    def process(self, inputs: StepInput) -> StepOutput:
        for row in inputs:
            if row["messages"][0]["content"] == f"prompt {BAD}":
                self._end("")
            row["critique"], row["failure"] = row["prompt_id"], None
        yield inputs


def started_processes() -> list[psutil.Process]:
    """Running children of this process, without the servers that start others."""
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if process.status() != psutil.STATUS_ZOMBIE and not any(name in str(process.cmdline()) for name in ("main(", "resource_tracker"))
    ]


@pytest.mark.parametrize(("copies", "ends"), [(1, THREAD_ENDS), (2, PROCESS_ENDS)])
def test_any_end_of_any_process_ends_the_stage_with_its_cause_and_a_rerun_loses_nothing(
    copies: int, ends: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", KEY)
    rows = [prompt_row([{"role": "user", "content": f"prompt {n}"}], "test") for n in range(ROWS)]
    write_rows([pa.Table.from_pylist(rows, schema=SCHEMAS["prompts"])], SCHEMAS["prompts"], tmp_path / "prompts")
    source = Outside("prompts", tmp_path / "prompts", "0")
    step = Use(f"{__name__}:Ends", {"work": Input(WORK), "ends": list(ends)}, {"replicas": copies, "device": "cpu"})
    stage = RowStage("end", 0, {"prompts": source}, sources=("prompts",), steps=(step,), schema="critiques", rows_per_part=2)
    run = Run(tmp_path / "run")
    run.create()
    earlier_processes = started_processes()
    with job({"SOME_API_KEY": KEY}):
        for how, cause in ends.items():
            with pytest.raises(StageError, match=f"stage 0-end failed: .*{cause}"):
                execute(run, [stage], Reporter())
            assert started_processes() == earlier_processes, how
            assert run.events()[-1]["event"] == "failed" and "\n" not in run.events()[-1]["cause"]
        execute(run, [stage], Reporter())
    assert read_table(run.folder(stage))["critique"].to_pylist() == [row["prompt_id"] for row in rows]
    assert KEY not in "".join(path.read_text(errors="replace") for path in run.root.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("signal SIGTERM", r"the stage's process was killed by signal 15 \(SIGTERM\); its output is in .+log"),
        ("signal SIGSEGV", r"was killed by signal 11 \(SIGSEGV\)"),
        ("_exit 0", r"the stage's process ended with exit code 0; its output is in .+log"),
        ("_exit 1", r"ended with exit code 1;"),
        ("_exit 137", r"ended with exit code 137 \(as after SIGKILL; out of memory\?\)"),
        ("exit 0", r"^SystemExit: 0; the full trace is in .+log"),
        ("KeyboardInterrupt", r"^KeyboardInterrupt; the full trace"),
        ("GeneratorExit", r"^GeneratorExit; the full trace"),
        ("SilentError", r"^SilentError; the full trace"),
        ("StubbornError", r"^StubbornError: \(no message: ValueError\); the full trace"),
        ("deeper", r"^RecursionError: maximum recursion depth exceeded"),
        ("thread", r"^MemoryError in the thread helper; the full trace"),
    ],
)
def test_any_end_of_a_child_is_reported_with_its_cause(how: str, cause: str, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=cause):
        run_in_child(f"{__name__}:leave", {"how": how}, tmp_path / "log", lambda: None)


def start_a_sleeper(pid: Path) -> None:
    """Start a worker that starts a program, and end only the worker."""
    worker = multiprocessing.Process(target=_sleeper, args=(pid,))
    worker.start()
    worker.join()
    signal.pause()


def _sleeper(pid: Path) -> None:
    pid.write_text(str(subprocess.Popen(["sleep", "600"]).pid))
    os._exit(0)


def test_processes_that_a_dead_worker_started_end_with_the_stage(tmp_path: Path) -> None:
    def interrupt() -> None:
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_in_child(f"{__name__}:start_a_sleeper", {"pid": tmp_path / "pid"}, tmp_path / "log", interrupt)
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text())) or started_processes() == []


def start_a_daemon_and_end(pid: Path) -> None:
    """Start a program that is detached from this process, then be killed."""
    pid.write_text(str(subprocess.Popen(["sleep", "600"], start_new_session=True).pid))
    leave("signal SIGKILL")


def test_processes_that_a_killed_stage_started_end_with_it(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="SIGKILL"):
        run_in_child(f"{__name__}:start_a_daemon_and_end", {"pid": tmp_path / "pid"}, tmp_path / "log", lambda: None)
    with contextlib.suppress(psutil.NoSuchProcess):
        program = psutil.Process(int((tmp_path / "pid").read_text()))
        psutil.wait_procs([program], timeout=5)
        assert program.status() == psutil.STATUS_ZOMBIE, "only whoever took it over has not looked yet"


def test_the_fork_server_prints_nothing_when_it_is_interrupted_while_it_imports(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nsignal.pause()")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
    server = subprocess.run([sys.executable, "-c", "import eva_stages.core.preload"], env=environment, capture_output=True, check=False)
    assert (server.returncode, server.stderr) == (130, b"")


class Leaves(Step):
    """Ends its process when it is loaded."""

    how: str

    @property
    def inputs(self) -> list[str]:
        return ["prompt_id"]

    def load(self) -> None:
        leave(self.how)

    def process(self, inputs: StepInput) -> StepOutput:
        yield inputs


@pytest.mark.parametrize(
    ("how", "cause"), [("exit 0", "SystemExit: 0"), ("KeyboardInterrupt", "KeyboardInterrupt"), ("lines", "ValueError: first")]
)
def test_every_error_of_a_step_on_ray_is_returned_as_text(how: str, cause: str) -> None:
    with pytest.raises(StageError, match=f"^{cause}"):
        Steps([as_data(Use(f"{__name__}:Leaves", {"how": how}))], {}, 2).load()


RANK = """
import os, signal, sys, threading
from pathlib import Path
from eva_stages.solver.machine import Marks
Marks.own_mark(Path(sys.argv[1])).touch()
"""
LAUNCH_ENDS = {
    "os._exit(0)": r"^training process \d+ ended before training had finished, without an error; its output is in .+training.log",
    "os.kill(os.getpid(), signal.SIGTERM)": r"^training was killed by signal 15 \(SIGTERM\); its output is in",
    "os.kill(os.getpid(), signal.SIGKILL)": r"^training was killed by signal 9 \(SIGKILL; out of memory\?\)",
    "os._exit(137)": r"^training ended with exit code 137 \(as after SIGKILL; out of memory\?\)",
    "print('last words', flush=True); os._exit(3)": r"^training ended with exit code 3: last words; its output is in",
    f"sys.exit('ValueError: it is {KEY}')": r"^training ended with code 1: ValueError: it is \[removed\]; its output is in",
}


@pytest.mark.parametrize("end", LAUNCH_ENDS)
def test_any_end_of_a_launched_training_is_reported_with_its_cause(end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", KEY)
    with pytest.raises(StageError, match=LAUNCH_ENDS[end]):
        launch([sys.executable, "-c", RANK + end, str(tmp_path)], {}, tmp_path / "training.log", lambda: None)
    assert KEY not in (tmp_path / "training.log").read_text()


def test_one_of_two_training_processes_that_exits_with_0_ends_the_other(tmp_path: Path) -> None:
    (tmp_path / "rank.py").write_text(RANK + "os._exit(0) if os.environ['RANK'] == '1' else signal.pause()")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", str(tmp_path / "rank.py"), str(tmp_path)]
    with pytest.raises(StageError, match="ended before training had finished, without an error"):
        launch(command, {}, tmp_path / "training.log", lambda: None)
    assert started_processes() == []


REPORT = """
RuntimeError: connection closed by peer
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
Failures:
  <NO_OTHER_FAILURES>
Root Cause (first observed failure):
[0]:
  time      : 2026-11-26_04:00:00
  host      : node
  rank      : 1 (local_rank: 1)
  exitcode  : -15 (pid: 4711)
  error_file: <N/A>
  traceback : Signal 15 (SIGTERM) received by PID 4711
"""


def test_the_first_of_several_training_processes_to_fail_is_named(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(REPORT)
    assert failure(1, tmp_path / "log").startswith("training process 1 (process 4711) was killed by signal 15 (SIGTERM); its output is in")
    (tmp_path / "log").write_text(REPORT.replace(": -15", ": 1"))
    assert failure(1, tmp_path / "log").startswith("training ended with code 1: RuntimeError: connection closed by peer; its output is")


def test_exit_codes_are_reported_in_words() -> None:
    assert [ending(code) for code in (0, 1, 3, 137, 143)] == [
        "ended with exit code 0",
        "ended with exit code 1",
        "ended with exit code 3",
        "ended with exit code 137 (as after SIGKILL; out of memory?)",
        "ended with exit code 143 (as after SIGTERM)",
    ]
    assert ending(-6) == "was killed by signal 6 (SIGABRT)" and ending(-64).startswith("was killed by signal 64")
