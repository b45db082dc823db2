"""Fixtures: the real command line in its own processes, and a tiny run that several tests share."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from benchmarks.chaos import SMALL
from cli.main import exit_code
from eva_stages.core.manifests import content
from eva_stages.core.named_functions import FunctionCode, resolve_function
from eva_stages.core.process import PRELOADED_MODULES
from eva_stages.core.tables import read_table

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run in parallel; more threads would only compete for the cores
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a shell's background job; processes that tests start would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH"))))
PRELOADED_MODULES.append("tests.fork_server_imports")

EVALDATA = Path(__file__).parents[2] / "shared" / "evaldata"

TINY = SMALL
COLUMNS = "200"
Output = subprocess.CompletedProcess[str]
LONG = (
    "test_recipes.py",
    "test_real_text.py",
    "test_process_cases.py",
    "test_curated_run.py",
    "test_benchmarks.py",
    "test_training.py",
    "test_controls.py",
)

SHOWING = ("test_document_commands.py", "test_pull.py", "test_report.py", "test_terminal_output.py", "test_push.py")
"""Files of the second group of tests that use the tiny run."""


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Balance the test processes: tests that use the tiny run share it in two processes, and long tests start first."""
    for item in items:
        if "tiny_run" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("shown_tiny_run" if item.path.name in SHOWING else "tiny_run"))
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def function_code(file: str | Path, name: str) -> FunctionCode:
    """A function in a file, as steps get it."""
    return FunctionCode(name=name, digest=resolve_function(f"{file}:{name}", "reward.function").digest, file=str(file))


def overrides(settings: dict[str, object]) -> list[str]:
    return [word for name, value in settings.items() for word in ("--set", f"{name}={json.dumps(value)}")]


def start_eva(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.Popen[str]:
    """Start the command line in its own process group."""
    command = [sys.executable, "-m", "cli.main", *arguments]
    path = os.pathsep.join(filter(None, (environment.pop("PYTHONPATH", ""), os.environ["PYTHONPATH"])))
    return subprocess.Popen(
        command,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": COLUMNS, **environment},
    )


def run_eva(*arguments: str, cwd: Path | None = None, code: int = 0, seconds: float = 600, **environment: str) -> Output:
    """Run the command line to its end and check its exit code, and that it prints no traceback.

    Without an `environment` it runs in this process, where the stages of all tests share one fork server: to start one takes 6 seconds of
    a processor, more than most stages. With one it is a process with at most `seconds`, as after `start_eva`.
    """
    output = eva_process(*arguments, cwd=cwd, seconds=seconds, **environment) if environment else eva_here(arguments, cwd or Path.cwd())
    assert output.returncode == code, f"exit code {output.returncode}, expected {code}\n{output.stdout}\n{output.stderr}"
    assert "Traceback" not in output.stderr, output.stderr
    return output


def eva_process(*arguments: str, cwd: Path | None = None, seconds: float = 600, **environment: str) -> Output:
    process = start_eva(*arguments, cwd=cwd, **environment)
    stdout, stderr = process.communicate(timeout=seconds)
    return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)


def eva_here(arguments: Sequence[str], cwd: Path) -> Output:
    with contextlib.chdir(cwd), pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", COLUMNS)
        patch.setattr(sys, "argv", ["eva", *arguments])
        with contextlib.redirect_stdout(io.StringIO()) as stdout, contextlib.redirect_stderr(io.StringIO()) as stderr:
            code = exit_code()
    return subprocess.CompletedProcess(arguments, code, stdout.getvalue(), stderr.getvalue())


def kill_group(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def manifests(run: Path) -> dict[str, dict]:
    """Manifests of a run's finished stages by their labels."""
    manifest_by_label = {}
    for path in sorted((run / "stages").glob("*/manifest.json")):
        manifest = json.loads(path.read_text())
        manifest_by_label[f"{manifest['iteration']}-{manifest['stage']}"] = manifest
    return manifest_by_label


def artifact_folder(run: Path, label: str) -> Path:
    """The folder of a finished stage's artifact."""
    (folder,) = run.glob(f"stages/{label}-????????????")
    return folder


def artifact_rows(run: Path, label: str) -> list[dict]:
    return read_table(artifact_folder(run, label) / "data").to_pylist()


def events(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny uninterrupted run of the quickstart: a base round and one eva iteration."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    run_eva("run", "quickstart", "--run-dir", str(run), *overrides(TINY))
    return run


@pytest.fixture
def stage_folder(tiny_run: Path) -> Callable[[str], Path]:
    """A function from the label of a finished stage of the tiny run to the folder with its files."""

    return lambda label: content(artifact_folder(tiny_run, label))
