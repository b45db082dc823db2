import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from eva_stages.core import job_context, process
from eva_stages.core.errors import StageError
from eva_stages.core.process import run_in_child

ROOT = Path(__file__).parents[2]


def work_with_a_fork(pids: Path) -> None:
    worker = multiprocessing.Process(target=signal.pause)
    worker.start()
    pids.with_suffix(".partial").write_text(f"{os.getpid()} {worker.pid}")
    pids.with_suffix(".partial").rename(pids)
    signal.pause()


def work_for_ever(pids: Path) -> None:
    pids.with_suffix(".partial").write_text(str(os.getpid()))
    pids.with_suffix(".partial").rename(pids)
    signal.pause()


START = """
from pathlib import Path
from eva_stages.core.process import run_in_child

run_in_child("tests.core.test_process:work_for_ever", {"pids": Path("pids")}, Path("log"), lambda: None)
"""
"""A script without a guard: no child may run it again."""


def variables(names: list[str]) -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in names}


def test_a_stage_has_the_environment_of_the_program_at_that_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["EVA_TEST_VARIABLE", "HOME"]
    monkeypatch.setenv("EVA_TEST_VARIABLE", "set after the fork server started")
    monkeypatch.delenv("HOME")
    for value in ("set after the fork server started", "changed"):
        monkeypatch.setenv("EVA_TEST_VARIABLE", value)
        result = run_in_child("tests.core.test_process:variables", {"names": names}, tmp_path / "log", lambda: None)
        assert result == {"EVA_TEST_VARIABLE": value, "HOME": None}


def test_a_stage_ends_when_eva_alone_is_killed(tmp_path: Path) -> None:
    (tmp_path / "start.py").write_text(START)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    eva = subprocess.Popen([sys.executable, "start.py"], cwd=tmp_path, env=environment)
    while not (tmp_path / "pids").exists():
        assert eva.poll() is None
        time.sleep(0.05)
    stage = psutil.Process(int((tmp_path / "pids").read_text()))
    eva.kill()
    eva.wait()
    assert psutil.wait_procs([stage], timeout=30)[1] == []
    assert "Traceback" not in (tmp_path / "log").read_text()


def fail_unheard() -> None:
    ours, child_end = multiprocessing.Pipe(duplex=False)
    ours.close()
    process._report = child_end
    threading.Thread(target=process.fail, args=("nobody hears this",)).start()
    signal.pause()


def test_a_failure_that_nobody_hears_ends_the_process_all_the_same() -> None:
    failing = multiprocessing.get_context("fork").Process(target=fail_unheard)
    failing.start()
    failing.join(timeout=20)
    alive = failing.is_alive()
    failing.kill()
    assert not alive


def test_what_a_stage_has_forked_ends_with_it_when_it_alone_is_killed(tmp_path: Path) -> None:
    pids, workers = tmp_path / "pids", list[psutil.Process]()

    def kill() -> None:
        if pids.exists() and not workers:
            stage, worker = map(int, pids.read_text().split())
            workers.append(psutil.Process(worker))
            os.kill(stage, signal.SIGKILL)

    with pytest.raises(StageError, match="was killed by signal 9"):
        run_in_child(f"{__name__}:work_with_a_fork", {"pids": pids}, tmp_path / "log", kill)
    assert psutil.wait_procs(workers, timeout=30)[1] == []


def interrupt_itself() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()


def test_ctrl_c_that_a_stages_process_notices_first_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interruption = threading.Event()
    monkeypatch.setattr(job_context, "interruption", interruption)
    log = tmp_path / "log"
    with ThreadPoolExecutor(1) as pool:
        stage = pool.submit(run_in_child, f"{__name__}:interrupt_itself", {}, log, lambda: None)
        while "KeyboardInterrupt" not in (log.read_text() if log.exists() else ""):
            pass
        interruption.set()  # as the main thread does when it receives its own
        assert isinstance(stage.exception(), KeyboardInterrupt)


def pages_touched_again() -> tuple[int, int]:
    """Page faults while 20 blocks are allocated and freed ten times, and the pages that they have all ten times together."""
    block_bytes, start = 2**21, resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        blocks = [np.ones(block_bytes, dtype=np.uint8) for _ in range(20)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start, 10 * 20 * block_bytes // resource.getpagesize()


@pytest.mark.skipif(sys.platform != "linux", reason="other allocators keep what is freed by their own rules")
def test_a_stage_uses_freed_memory_again_without_page_faults(tmp_path: Path) -> None:
    faults, pages = run_in_child("tests.core.test_process:pages_touched_again", {}, tmp_path / "log", lambda: None)
    assert faults < pages / 4
