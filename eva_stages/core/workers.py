"""Supervision of the processes of a distilabel pipeline: the first that fails, or ends before the work is done, ends the stage.

distilabel notices only exceptions that can be pickled. A worker that is killed, exits, or raises `SystemExit` or `KeyboardInterrupt` is
replaced by an idle one, and its batch is waited for for ever. Until the pipeline shuts down, the end of a worker is an error whatever its
exit code, 0 and SIGTERM included.
"""

import multiprocessing
import os
import threading
import time
from typing import Any

from eva_stages.core.process import check_first, fail
from eva_stages.core.process_ending import ending

POLL_SECONDS = 0.1
ECHO_SECONDS = 0.5
"""How long after an error in one process to check for the end of another one, which may be its cause."""
_names: Any = None


class Workers:
    """The processes of this process's pipeline and the steps that they run."""

    def __init__(self) -> None:
        global _names
        self._pid_reader, _names = multiprocessing.Pipe(duplex=False)  # the workers inherit it
        self._steps: dict[int, str] = {}
        self._processes: list[Any] = []
        self._lock = threading.Lock()
        self._is_released = False

    def watch(self) -> None:
        """From now on the end of any present process, or of one that replaces it, ends the stage."""
        self._processes = multiprocessing.active_children()
        check_first(lambda: self.find_end(ECHO_SECONDS))
        threading.Thread(target=self._watch, daemon=True, name="watch").start()

    def release(self) -> None:
        """The work is done: from now on processes may end."""
        with self._lock:
            self._is_released = True

    def find_end(self, seconds: float = 0) -> str | None:
        """Which process has ended too early, and how; None if none does within some seconds."""
        deadline = time.monotonic() + seconds
        while (cause := self._look()) is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS / 10)
        return cause

    def _look(self) -> str | None:
        with self._lock:
            if self._is_released:
                return None
            while self._pid_reader.poll():
                pid, step = self._pid_reader.recv()
                self._steps[pid] = step
            present = multiprocessing.active_children()
            for process in self._processes:
                if process.exitcode is not None:
                    return f"{self._name(process)} {ending(process.exitcode)} before its work was finished"
            is_replaced = len(present) > len(self._processes) or not all(process in self._processes for process in present)
            return "a worker of the stage ended as soon as it had started" if is_replaced else None

    def _name(self, process: Any) -> str:
        step = self._steps.get(process.pid)
        subject = f"the worker of step {step}" if step else "the queue manager" if "Manager" in process.name else "an idle worker"
        return f"{subject} (process {process.pid})"

    def _watch(self) -> None:
        while not self._is_released:
            if cause := self.find_end():
                fail(cause)
            time.sleep(POLL_SECONDS)


def announce(step: str) -> None:
    """In a worker process: report which step it runs."""
    if _names is not None:
        _names.send((os.getpid(), step))
