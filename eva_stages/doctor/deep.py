"""Runs the checks of `eva doctor --deep` one after the other and measures their time and memory. A failing check stops no other.

Stages run in processes that are forked from one fork server, so that libraries are imported once. A check that takes longer than its limit
is ended: a process group that cannot communicate would wait for ever.
"""

import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
from transformers.utils.logging import disable_progress_bar

from eva_stages.core.errors import StageError, describe
from eva_stages.core.process import start_fork_server
from eva_stages.core.text_table import TextTable
from eva_stages.doctor.deep_checks import CHECKS, TINY, Bench, Check, Size, save_models
from eva_stages.doctor.findings import State

SAMPLE_SECONDS = 0.3
COLUMNS = ("seconds", "tokens/s", "peak_mib")
GPU_QUERY = ("nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits")


class PeakMemory(threading.Thread):
    """The most memory that is in use while this runs, in MiB: of all GPUs beyond what was in use before, or of this process's children."""

    def __init__(self, on_gpu: bool) -> None:
        super().__init__(daemon=True)
        self._read_memory = _gpu_memory if on_gpu else _children_memory
        self._first = self._read_memory() if on_gpu else 0
        self._peak = 0
        self._stop_event = threading.Event()

    def run(self) -> None:
        while not self._stop_event.wait(SAMPLE_SECONDS):
            self._peak = max(self._peak, self._read_memory() - self._first)

    def stop(self) -> int:
        self._stop_event.set()
        self.join()
        return self._peak


def _gpu_memory() -> int:
    with suppress(OSError, subprocess.CalledProcessError, ValueError):
        result = subprocess.run(GPU_QUERY, capture_output=True, text=True, check=True, encoding="utf-8")
        return sum(int(line) for line in result.stdout.split())
    return 0


def _children_memory() -> int:
    """Memory of all descendants; a page that several share counts once."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error, OSError):
            memory = process.memory_full_info()
            total += getattr(memory, "pss", memory.uss)
    return total // 2**20


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raises:
    StageError: in the main thread, where the block takes longer.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise StageError(f"took longer than {seconds:.0f} s and was ended")

    earlier = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)


def check_all(
    gpus: int,
    report: Callable[[str], None],
    checks: Sequence[Check] = CHECKS,
    size: Size = TINY,
) -> dict[str, Any]:
    """Run the checks.

    Args:
        gpus: how many this process may use.
        report: called with a line about each check that has ended.

    Returns:
        `checks`, a list of rows with name, state, figures and reason; `logs`, the folder with the files of checks that failed, or None.
    """
    folder = Path(tempfile.mkdtemp(prefix="eva-doctor-"))
    start_fork_server()
    disable_progress_bar()
    save_models(folder / "models", size)
    rows = []
    for number, check in enumerate(checks):
        bench = Bench(folder / "models", folder / f"{number:02}", size, gpus)
        row = _skipped_row(check, obstacle) if (obstacle := check.obstacle(gpus)) else _run(check, bench)
        if row["state"] == State.OK:
            shutil.rmtree(bench.folder, ignore_errors=True)
        report(f"{check.name}: {row['state']}" + (f", {row['seconds']} s" if row["seconds"] else ""))
        rows.append(row)
    if all(row["state"] != State.ERROR for row in rows):
        shutil.rmtree(folder)
    return {"checks": rows, "on": "GPU" if gpus else "CPU", "logs": str(folder) if folder.is_dir() else None}


def _skipped_row(check: Check, reason: str) -> dict[str, Any]:
    return {"name": check.name, "state": State.OMISSION, **dict.fromkeys(COLUMNS), "reason": reason}


def _run(check: Check, bench: Bench) -> dict[str, Any]:
    memory = PeakMemory(bool(bench.gpus))
    memory.start()
    figures, state, reason, begin = dict[str, Any](), State.OK, "", time.monotonic()
    try:
        with _time_limit(check.limit_seconds):
            figures = check.run(bench)
    except Exception as error:  # whatever it is, it says that this does not work here
        state, reason = State.ERROR, describe(error)
    finally:
        peak = memory.stop()
    seconds = round(time.monotonic() - begin, 1)
    return {"name": check.name, "state": state, "seconds": seconds, "peak_mib": peak or None, "reason": reason, **figures}


def deep_table(content: Mapping[str, Any]) -> TextTable:
    """The results for 80 columns."""
    rows = [(row["name"], row["state"], *(_number_text(row.get(name)) for name in COLUMNS), _remark(row)) for row in content["checks"]]
    memory = "of all GPUs" if content["on"] == "GPU" else "of its processes"
    notes = [f"Tiny random models on the {content['on']}: seconds with loading; peak = most memory {memory}, in MiB."]
    notes += [f"The logs of what failed are in {content['logs']}."] if content["logs"] else []
    heads = ("check", "state", "seconds", "tokens/s", "peak", "remark")
    return TextTable("Engines and launch files, each run once", heads, rows, notes, alignment="LLRRRl")


def _number_text(number: float | None) -> str | None:
    return None if number is None else f"{number:,.0f}"


def _remark(row: Mapping[str, Any]) -> str:
    if row["state"] != State.OK:
        return str(row["reason"])
    parts = [f"{row['processes']} processes"] if "processes" in row else []
    parts += [f"loss {row['loss']:z.3f}"] if "loss" in row else []
    return ", ".join(parts)
