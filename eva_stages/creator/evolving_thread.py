"""A thread that evolves prompts while training goes on, one batch after another in the order in which they came.

The evolver is loaded, called and unloaded in the thread. It is a daemon: a training that fails does not wait for a server's reply.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from eva_stages.core.rows import Message
from eva_stages.creator.step_evolving import StepEvolving

Row = dict[str, Any]


@dataclass
class Batch:
    """The prompts that a step drew to be evolved, and later their evolutions."""

    step: int
    parents: list[Row] = field(default_factory=list)
    evolutions: list[Row] | None = None
    error: BaseException | None = None
    return_event: threading.Event = field(default_factory=threading.Event)

    def wait(self) -> list[Row]:
        """The evolutions, when they are there.

        Raises:
            what the evolver raised.
        """
        self.return_event.wait()
        if self.error is not None:
            raise self.error
        assert self.evolutions is not None
        return self.evolutions


class EvolvingThread:
    """Evolves batches in a thread that starts with the first one."""

    def __init__(self, evolving: StepEvolving, fits: Callable[[Sequence[Message]], bool]) -> None:
        self._evolving, self._fits = evolving, fits
        self._batches: SimpleQueue[Batch | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, batch: Batch) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True, name="evolving")
            self._thread.start()
        self._batches.put(batch)

    def close(self) -> None:
        """Unload the evolver after its last batch."""
        if self._thread is not None:
            self._batches.put(None)
            self._thread.join()

    def _work(self) -> None:
        is_loaded = False
        while (batch := self._batches.get()) is not None:
            try:
                if not is_loaded:
                    self._evolving.load()
                    is_loaded = True
                batch.evolutions = self._evolving.evolve(batch.step, batch.parents, self._fits)
            except BaseException as error:  # raised again where the batch is waited for
                batch.error = error
            batch.return_event.set()
        if is_loaded:
            self._evolving.unload()
