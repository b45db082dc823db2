"""Running a stage's work in a separate process.

Model libraries are imported once, in a fork server, so a stage starts at once and frees its memory when it ends, while the process that
talks to the user stays small. The child belongs to the same process group (one signal reaches all), dies with its parent, and writes the
output of libraries to a log file. It may be killed at any time: all results are on disk. However it or one of its threads ends before the
work is done, the caller gets the cause and no process is left running.
"""

import atexit
import contextlib
import ctypes
import errno
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn
from uuid import uuid4

import psutil

from eva_stages.core.durable import unwritable
from eva_stages.core.errors import EvaError, StageError, describe
from eva_stages.core.job_context import ECHO_SECONDS, NICENESS, THREADS, check_interruption, job_environment
from eva_stages.core.logs import clean_log
from eva_stages.core.memory import keep_freed_memory
from eva_stages.core.patches import process_name
from eva_stages.core.process_ending import ending, kill_tree
from eva_stages.core.redaction import add_secret_variable, secret_variables
from eva_stages.core.stage import load_attribute

POLL_SECONDS = 0.05
SUBREAPER = 36
MARK = "EVA_STAGE_PROCESS"
"""Environment variable that identifies the programs that a stage's process has started."""
PRELOADED_MODULES = ["eva_stages.core.preload"]
"""Modules that the fork server imports for all stages."""
_held_locks: ContextVar[tuple[int, ...]] = ContextVar("held_locks", default=())
"""Descriptors of locks that the child processes of this thread keep open too."""
_bookkeeping = threading.Lock()
"""Held while multiprocessing changes its list of children, or reads how one of them ended: it does neither for several threads."""
_server_variables: dict[str, str] = {}
"""The environment that the fork server started with: a Python program may change its own between two runs."""
_report: Connection | None = None
_log = Path("the log")
_check_first: Callable[[], str | None] | None = None


@contextlib.contextmanager
def held_in_children(lock: int) -> Iterator[None]:
    """Let the processes that are started in the block hold a lock (its file descriptor) too: it is released when all of them have ended."""
    token = _held_locks.set((*_held_locks.get(), lock))
    try:
        yield
    finally:
        _held_locks.reset(token)


def start_fork_server() -> None:
    """Start the fork server now, so that it imports the libraries until the first stage needs them. It ends with this process."""
    if sys.platform != "darwin":
        _context()
        forkserver.ensure_running()
        atexit.unregister(_end_fork_server)
        atexit.register(_end_fork_server)


def _end_fork_server() -> None:
    """Alone it would end only when it has imported everything."""
    if pid := getattr(forkserver._forkserver, "_forkserver_pid", None):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _context() -> Any:
    context = multiprocessing.get_context("spawn" if sys.platform == "darwin" else "forkserver")
    context.set_forkserver_preload(PRELOADED_MODULES)
    if not _server_variables:
        _server_variables.update(os.environ)
    return context


def run_in_child(target: str, arguments: dict[str, Any], log: Path, poll: Callable[[], None]) -> Any:
    """Call "module:attr" with keyword arguments in a child process and return what it returns.

    Args:
        log: file that takes the child's standard output and error, without secrets.
        poll: called twenty times a second while the child works.

    Raises:
        StageError: with the cause, if the child raised or died.
        KeyboardInterrupt: in a thread, if the command is interrupted, before the child fails or shortly after it.
    """
    context = _context()
    our_end, their_end = context.Pipe(duplex=False)
    mark = uuid4().hex
    with clean_log(log) as output:
        # as connections, the descriptors go to the fork server at once; otherwise the child would request them from this process
        locks = [Connection(os.dup(lock), writable=False) for lock in _held_locks.get()]
        variables = {**_changed_variables(), **job_environment()}
        child_arguments = (their_end, output, secret_variables(), mark, variables, target, arguments, str(log), locks)
        child = context.Process(target=_main, args=child_arguments, name=process_name())
        try:
            with _bookkeeping:
                check_interruption()  # or it would start another fork server
                with _without_main():
                    child.start()
        except (EOFError, ConnectionError) as error:
            check_interruption(ECHO_SECONDS)  # Ctrl-C ends a fork server that still imports
            raise StageError("the fork server was killed (out of memory?)") from error
        finally:
            for lock in locks:  # the child has its own
                lock.close()
        their_end.close()
        is_orphan, outcome = False, None
        try:
            while not wait([our_end, child.sentinel], timeout=POLL_SECONDS):
                check_interruption()
                poll()
            outcome = our_end.recv() if our_end.poll() else None
            is_orphan = outcome is None and psutil.pid_exists(child.pid)
        except EOFError:
            pass
        finally:
            kill_tree(child.pid)
            with _bookkeeping:
                child.join()
            if outcome is None:
                _kill_marked(mark)
    poll()
    if outcome is not None and outcome[0] == "done":
        return outcome[1]
    check_interruption(ECHO_SECONDS)
    if outcome is not None:
        raise StageError(outcome[1])
    if is_orphan:
        raise StageError("the fork server was killed while a stage was running (out of memory?)")
    raise StageError(f"the stage's process {ending(child.exitcode)}; its output is in {log}")


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Hide the program's main module. multiprocessing would run it in each child, where a script without a guard starts its run again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _changed_variables() -> dict[str, str | None]:
    """Environment variables that differ from those of the fork server; None: removed since."""
    if sys.platform == "darwin":
        return {}
    return {
        name: os.environ.get(name)
        for name in _server_variables.keys() | os.environ.keys()
        if os.environ.get(name) != _server_variables.get(name)
    }


def _kill_marked(mark: str) -> None:
    """Kill the programs of a process that was killed: without a parent, only the mark identifies them."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # of another user, or ended
            if process.environ().get(MARK) == mark:
                process.kill()


def fail(message: str) -> NoReturn:
    """Report a failure from any thread of a child, then end the child and its descendants at once."""
    if _report is not None:
        _tell(_report, ("failed", (_check_first and _check_first()) or message))
    _end_all()


def check_first(find_cause: Callable[[], str | None]) -> None:
    """Call `find_cause` before a failure in this process is reported; a cause that it returns is reported instead."""
    global _check_first
    _check_first = find_cause


def cause_of(error: BaseException, where: str = "") -> str:
    """The message for an exception in a child: that of eva's errors, or type and message with the place of the traceback."""
    if isinstance(error, EvaError):
        return describe(error)
    if isinstance(error, OSError) and os.strerror(errno.ENOSPC) in describe(error):  # some libraries pass on the message without the number
        return str(unwritable(OSError(errno.ENOSPC, ""), _log.parent))
    return f"{describe(error)}{where}; the full trace is in {_log}"


def print_trace(error: BaseException) -> None:
    """Print a plain traceback into the log."""
    with contextlib.suppress(Exception):  # an exception whose __str__ raises
        traceback.print_exception(error)


def _tell(report: Connection, outcome: tuple[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the receiver has ended
        report.send(outcome)


def _end_all() -> NoReturn:
    """End this process and its descendants at once."""
    for member in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    os._exit(1)


def _main(
    report: Connection,
    output: Connection,
    variables: list[str],
    mark: str,
    environment: dict[str, str | None],
    target: str,
    arguments: dict[str, Any],
    log: str,
    locks: list[Connection],  # open until this process ends
) -> None:
    global _report, _log
    _report, _log = report, Path(log)
    os.environ.update({MARK: mark, **{name: value for name, value in environment.items() if value is not None}})
    for name in [name for name, value in environment.items() if value is None]:
        os.environ.pop(name, None)
    os.nice(int(environment.get(NICENESS) or 0))
    keep_freed_memory()
    if (threads := environment.get(THREADS)) and (torch := sys.modules.get("torch")):  # the fork server read another value
        torch.set_num_threads(int(threads))
    for name in variables:
        add_secret_variable(name)
    if sys.platform != "darwin":  # distilabel's workers inherit the modules that are imported here
        multiprocessing.set_start_method("fork", force=True)
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    output.close()
    if sys.platform == "linux":  # descendants of a killed worker become children of this process and end with it
        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    threading.excepthook = _thread_failed
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _end_forks_with_this_process()
    try:
        outcome = "done", load_attribute(target)(**arguments)
    except BaseException as error:
        print_trace(error)
        outcome = "failed", cause_of(error)
    with contextlib.suppress(OSError):
        sys.stdout.flush()  # the parent may kill this process once it has the outcome
    _tell(report, outcome)


def _end_forks_with_this_process() -> None:
    """End forked processes (distilabel's workers) when this process ends, however it ends: they would wait for its next batch for ever."""
    reading, writing = os.pipe()
    ours = [writing]  # the forks close their copies; the kernel closes this one with the process

    def end() -> None:
        os.read(reading, 1)
        _end_all()

    def in_fork() -> None:
        while ours:
            os.close(ours.pop())
        threading.Thread(target=end, daemon=True).start()

    os.register_at_fork(after_in_child=in_fork)


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    """End the stage when a helper thread fails; the main thread would wait for it."""
    if failure.exc_value is not None and not isinstance(failure.exc_value, SystemExit):
        print_trace(failure.exc_value)
        fail(cause_of(failure.exc_value, f" in the thread {failure.thread.name if failure.thread else 'that ended'}"))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        fail("the parent process has ended")
