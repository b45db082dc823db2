"""What a command that runs several stages side by side, each in a thread, tells the processes of these stages.

A thread's processes get additions to their environment: its share of the cores, its own accelerators, its niceness. Only the main thread
receives Ctrl-C; it sets `interruption`, and the other threads end their processes and raise `KeyboardInterrupt`.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

THREADS, GPUS = "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"
NICENESS = "EVA_NICENESS"
"""Environment variable with what is added to the niceness of a stage's process: how willingly it leaves the cores to others."""
ECHO_SECONDS = 2.0
"""How long after the failure of a stage to wait for the interruption that may be its cause: Ctrl-C reaches all processes at once."""

interruption = threading.Event()
_environment: ContextVar[Mapping[str, str]] = ContextVar("job_environment", default=MappingProxyType({}))


@contextmanager
def job(environment: Mapping[str, str]) -> Iterator[None]:
    """Add to the environment of the processes that this thread starts in the block."""
    token = _environment.set(environment)
    try:
        yield
    finally:
        _environment.reset(token)


def job_environment() -> dict[str, str]:
    """What is added to the environment of the processes that this thread starts."""
    return dict(_environment.get())


def check_interruption(seconds: float = 0.0) -> None:
    """Raises:
    KeyboardInterrupt: if the command was interrupted, or is within some seconds. The main thread has its own.
    """
    if threading.current_thread() is not threading.main_thread() and interruption.wait(seconds):
        raise KeyboardInterrupt
