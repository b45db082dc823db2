"""How any process ended, waiting for its end, and ending it with its descendants."""

import contextlib
import signal
import threading
from collections.abc import Callable

import psutil


def ending(code: int | None) -> str:
    """A description of how a process ended, from its exit code; negative codes are signals, as in `subprocess`."""
    if code is None:
        return "ended"
    name = _signal_name(-code if code < 0 else code - 128)
    why = "; out of memory?" if name == "SIGKILL" else ""
    if code < 0:
        return f"was killed by signal {-code} ({name or 'unknown'}{why})"
    return f"ended with exit code {code} (as after {name}{why})" if name else f"ended with exit code {code}"


def _signal_name(number: int) -> str | None:
    try:
        return signal.Signals(number).name
    except ValueError:
        return None


def kill_tree(pid: int | None) -> None:
    """Kill a process and its descendants; do nothing if it has ended."""
    try:
        process = psutil.Process(pid)
        family = [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue


def call_after_end(pid: int, then: Callable[[], object]) -> None:
    """Call `then` when another process has ended."""

    def wait_and_do() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).wait()
        then()

    threading.Thread(target=wait_and_do, daemon=True).start()
