"""The processes of a distilabel pipeline, watched: the first that ends before the work is done, or that fails, ends the stage.

distilabel hears only of exceptions that can be pickled. A worker that is killed, exits, or raises `SystemExit` or `KeyboardInterrupt` is
replaced by an idle one, and its batch is waited for for ever. A worker's end is its own only while the pipeline shuts down; until then the
exit code of every one says that something is wrong, 0 and SIGTERM included.
"""

import multiprocessing
import os
import threading
import time
from typing import Any

from eva_stages.core.process import ending, fail, look_first

POLL_SECONDS = 0.1
ECHO_SECONDS = 0.5
"""How long after an error in one process the end of another one is looked for, which may be what the error comes from."""
_names: Any = None


class Workers:
    """The processes that the pipeline of this process consists of, known by the steps that they run."""

    def __init__(self) -> None:
        global _names
        self._told, _names = multiprocessing.Pipe(duplex=False)  # the workers inherit it
        self._steps: dict[int, str] = {}
        self._known: list[Any] = []
        self._lock = threading.Lock()
        self._released = False

    def watch(self) -> None:
        """From now on the end of any process that is there, or that is started in place of one, is the stage's."""
        self._known = multiprocessing.active_children()
        look_first(lambda: self.find_end(ECHO_SECONDS))
        threading.Thread(target=self._watch, daemon=True, name="watch").start()

    def release(self) -> None:
        """All work is done: from now on processes may end."""
        with self._lock:
            self._released = True

    def find_end(self, seconds: float = 0) -> str | None:
        """Which process has ended before its time, and how; None if none does within some seconds."""
        deadline = time.monotonic() + seconds
        while (cause := self._look()) is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS / 10)
        return cause

    def _look(self) -> str | None:
        with self._lock:
            if self._released:
                return None
            while self._told.poll():
                pid, step = self._told.recv()
                self._steps[pid] = step
            present = multiprocessing.active_children()
            for process in self._known:
                if process.exitcode is not None:
                    return f"{self._name(process)} {ending(process.exitcode)} before its work was done"
            is_replaced = len(present) > len(self._known) or not all(process in self._known for process in present)
            return "a worker of the stage ended as soon as it had started" if is_replaced else None

    def _name(self, process: Any) -> str:
        step = self._steps.get(process.pid)
        subject = f"the worker of step {step}" if step else "the queue manager" if "Manager" in process.name else "an idle worker"
        return f"{subject} (process {process.pid})"

    def _watch(self) -> None:
        while not self._released:
            if cause := self.find_end():
                fail(cause)
            time.sleep(POLL_SECONDS)


def announce(step: str) -> None:
    """In a worker: report which step it runs."""
    _names.send((os.getpid(), step))
