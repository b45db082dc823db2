import multiprocessing
import os
import signal
from pathlib import Path

import psutil
import pytest

from eva_stages.core.errors import StageError
from eva_stages.core.process import run_in_child


def work_with_a_fork(pids: Path) -> None:
    worker = multiprocessing.Process(target=signal.pause)
    worker.start()
    pids.with_suffix(".partial").write_text(f"{os.getpid()} {worker.pid}")
    pids.with_suffix(".partial").rename(pids)
    signal.pause()


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
