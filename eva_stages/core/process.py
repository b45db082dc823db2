"""Running a stage's work in a process of its own.

Model libraries are imported once, in a fork server, so a stage starts in a moment and gives all its memory back when it ends,
while the process that talks to the person stays small. The child sits in the same process group (one signal reaches all), dies
with its parent, and writes its library chatter to a log file. Whoever asked may kill it at any time: what counts is on disk.
"""

import contextlib
import errno
import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NoReturn

import psutil

from eva_stages.core.errors import EvaError, StageError
from eva_stages.core.stage import load_attribute
from eva_stages.core.store import unwritable

POLL_SECONDS = 0.05
_report: Connection | None = None


def run_in_child(target: str, arguments: dict[str, Any], log: Path, poll: Callable[[], None]) -> Any:
    """Call "module:attr" with keyword arguments in a child process and return what it returns.

    Args:
        log: file that takes the child's standard output and error.
        poll: called twenty times a second while the child works.

    Raises:
        StageError: with the cause, if the child raised or died.
    """
    context: Any = multiprocessing.get_context("spawn" if sys.platform == "darwin" else "forkserver")
    context.set_forkserver_preload(["eva_stages.core.preload"])
    ours, theirs = context.Pipe(duplex=False)
    # distilabel sets its logging up only in a process of this name
    child = context.Process(target=_main, args=(theirs, target, arguments, str(log)), name="MainProcess")
    try:
        child.start()
    except (EOFError, ConnectionError) as error:
        raise StageError("the process that starts those of the stages was killed (out of memory?)") from error
    theirs.close()
    try:
        while not wait([ours, child.sentinel], timeout=POLL_SECONDS):
            poll()
        outcome = ours.recv() if ours.poll() else None
    except EOFError:
        outcome = None
    finally:
        kill_tree(child.pid)
        child.join()
    poll()
    match outcome:
        case ("done", result):
            return result
        case ("failed", message):
            raise StageError(message)
    code = child.exitcode
    how = f"was killed by signal {-code} (out of memory?)" if code is not None and code < 0 else f"ended with code {code}"
    raise StageError(f"the stage's process {how}; its output is in {log}")


def kill_tree(pid: int | None) -> None:
    """Kill a process and everything it started; quiet if it is gone."""
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


def fail(message: str) -> NoReturn:
    """Report a failure from any thread of a child and end it at once, with everything it started."""
    if _report is not None:
        _tell(_report, ("failed", message))
    for member in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    os._exit(1)


def when_gone(pid: int, then: Callable[[], object]) -> None:
    """Do something when another process has ended."""

    def wait_and_do() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).wait()
        then()

    threading.Thread(target=wait_and_do, daemon=True).start()


def _tell(report: Connection, outcome: tuple[str, Any]) -> None:
    with contextlib.suppress(OSError):  # nobody is there to hear it
        report.send(outcome)


def _main(report: Connection, target: str, arguments: dict[str, Any], log: str) -> None:
    global _report
    _report = report
    if sys.platform != "darwin":  # distilabel's workers are to inherit what is imported here
        multiprocessing.set_start_method("fork", force=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _end_forks_with_this_process()
    try:
        outcome = "done", load_attribute(target)(**arguments)
    except BaseException as error:
        with contextlib.suppress(OSError):  # a full disk takes no trace
            traceback.print_exc()
        outcome = "failed", _cause(error, Path(log))
    with contextlib.suppress(OSError):
        sys.stdout.flush()  # with the word the process may be killed
    _tell(report, outcome)


def _end_forks_with_this_process() -> None:
    """Let what this process forks (distilabel's workers) end when it does, however it ends: they would wait for its next batch for ever."""
    reading, writing = os.pipe()
    ours = [writing]  # once the forks have closed theirs, the only one, which the kernel closes with the process

    def end() -> None:
        os.read(reading, 1)
        os._exit(1)

    def in_fork() -> None:
        while ours:
            os.close(ours.pop())
        threading.Thread(target=end, daemon=True).start()

    os.register_at_fork(after_in_child=in_fork)


def _cause(error: BaseException, log: Path) -> str:
    if isinstance(error, EvaError):
        return str(error)
    if isinstance(error, OSError) and os.strerror(errno.ENOSPC) in str(error):  # some libraries pass on the words and no number
        return str(unwritable(OSError(errno.ENOSPC, ""), log.parent))
    return f"{type(error).__name__}: {error}; the full trace is in {log}"


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        fail("the parent process is gone")
