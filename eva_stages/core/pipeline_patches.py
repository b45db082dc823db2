"""The patches of distilabel that are subclasses of its classes; the others, and what a patch is, are in `patches.py`."""

import shutil
import sys
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import distilabel.pipeline.base
from distilabel.constants import STEPS_OUTPUTS_PATH
from distilabel.pipeline import Pipeline
from distilabel.pipeline.step_wrapper import _StepWrapper, _StepWrapperException

from eva_stages.core.errors import StageError, describe
from eva_stages.core.patches import patch, remove_rich_tracebacks
from eva_stages.core.process import cause_of, fail, print_trace
from eva_stages.core.workers import Workers, announce

if TYPE_CHECKING:
    from distilabel.pipeline.batch import _Batch

VERSIONS = ">=1.5.3,<1.6"
LONGEST_PAUSE = 0.02
remove_rich_tracebacks()


@patch("distilabel", VERSIONS, "BasePipeline._run_load_queue_loop, _run_stage_steps_and_wait: time.sleep(2.5)")
def poll_often() -> None:
    """distilabel checks only every 2.5 s whether its steps have loaded, which would be most of a small stage's time."""
    distilabel.pipeline.base.time = SimpleNamespace(sleep=lambda seconds: time.sleep(min(seconds, LONGEST_PAUSE)), time=time.time)


@patch("distilabel", VERSIONS, "_StepWrapper._impute_step_outputs, _StepWrapper.run")
class StepWorker(_StepWrapper):
    """A step at work in its own process. Whatever it raises arrives as a `StageError`, which every process can read.

    distilabel replaces the rows of a failed batch by rows of None and continues, and loses exceptions that cannot be pickled.
    """

    def run(self) -> str:
        """Load the step and put batches through it until there are no more; returns its name."""
        name = str(self.step.name)
        announce(name)
        try:
            self.step.load()
            self._notify_load()
            if self.step.is_generator:
                self._generator_step_process_loop()
            else:
                self._non_generator_process_loop()
            self.step.unload()
            self._notify_unload()
        except BaseException as error:
            cause = error.subprocess_exception if isinstance(error, _StepWrapperException) else error
            print_trace(cause)
            raise StageError(cause_of(cause, f" in step {name}")) from None
        return name

    def _impute_step_outputs(self, batch: Any) -> Any:
        """distilabel calls this when a step has failed."""
        error = sys.exception()
        assert error is not None
        raise error

    def _send_batch(self, batch: Any) -> None:
        if sys.exception() is None:  # otherwise the step has failed, and the batch is empty
            super()._send_batch(batch)


@patch("distilabel", VERSIONS, "BasePipeline._cache, _register_batch; LocalPipeline._run_step, _error_callback, _teardown")
class ThrowAwayPipeline(Pipeline):
    """A pipeline that is never resumed, because its rows are in part files, and that ends with the first of its processes.

    distilabel saves its state and the rows of every step as JSON after each batch, and leaves the last step's rows in the user's cache
    of data sets. It waits for ever for a worker that was killed, exited, or raised `SystemExit` or `KeyboardInterrupt`.
    """

    _workers: Workers

    def _cache(self) -> None:
        return

    def _register_batch(self, batch: "_Batch") -> None:
        self._batch_manager.register_batch(batch)

    def _run_output_queue_loop_in_thread(self) -> threading.Thread:
        self._workers.watch()  # all processes have started, and none has work yet
        return super()._run_output_queue_loop_in_thread()

    def _run_step(self, step: Any, input_queue: Any, replica: int) -> None:
        queues = {"input_queue": input_queue, "output_queue": self._output_queue, "load_queue": self._load_queue}
        self._pool.apply_async(StepWorker(step, replica, **queues).run, error_callback=self._error_callback)

    def _error_callback(self, e: BaseException) -> None:
        fail(describe(e))

    def _teardown(self) -> None:
        self._workers.release()
        super()._teardown()
        for folder in (self._cache_location["data"] / STEPS_OUTPUTS_PATH).glob("*"):  # input of a data set that nothing uses
            shutil.rmtree(folder)
