"""The patches of distilabel that are subclasses of its classes; the others, and what a patch is, are in `patches.py`."""

import queue
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import distilabel.pipeline.base
import distilabel.pipeline.local
import pyarrow.parquet as pq
from distilabel.constants import STEPS_OUTPUTS_PATH
from distilabel.pipeline import Pipeline
from distilabel.pipeline.batch import _Batch
from distilabel.pipeline.batch_manager import _BatchManagerStep
from distilabel.pipeline.step_wrapper import _StepWrapper, _StepWrapperException
from distilabel.steps import Step
from pydantic import PrivateAttr

from eva_stages.core.errors import StageError, describe
from eva_stages.core.parts import ROW, STATISTICS
from eva_stages.core.patches import patch, remove_rich_tracebacks
from eva_stages.core.process import cause_of, fail, print_trace
from eva_stages.core.workers import Workers, announce

VERSIONS = ">=1.5.3,<1.6"
LONGEST_PAUSE = 0.02
_loading = threading.Lock()
"""Held by a step that loads: transformers changes settings of the whole process while it loads a model."""
_FILE_NUMBER = re.compile(r"\d+")
remove_rich_tracebacks()


@patch("distilabel", VERSIONS, "BasePipeline._run_load_queue_loop, _run_stage_steps_and_wait: time.sleep(2.5)")
def poll_often() -> None:
    """distilabel checks only every 2.5 s whether its steps have loaded, which would be most of a small stage's time."""
    distilabel.pipeline.base.time = SimpleNamespace(sleep=lambda seconds: time.sleep(min(seconds, LONGEST_PAUSE)), time=time.time)


@patch("distilabel", VERSIONS, "_StepWrapper._impute_step_outputs, _StepWrapper.run")
class StepWorker(_StepWrapper):
    """A step at work in its own process or thread. Whatever it raises arrives as a `StageError`, which every process can read.

    distilabel replaces the rows of a failed batch by rows of None and continues, and loses exceptions that cannot be pickled.
    """

    def run(self) -> str:
        """Load the step and put batches through it until there are no more; returns its name."""
        name = str(self.step.name)
        announce(name)
        try:
            with _loading:
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


@patch("distilabel", VERSIONS, "_Batch.read_batch_data_from_fs")
def read_inputs_in_order() -> None:
    """distilabel passes the inputs of a global step as files, and reads them in the order in which the file system lists them."""
    _Batch.read_batch_data_from_fs = _read_in_order


def _read_in_order(batch: _Batch) -> None:
    files = batch._fs.ls(batch.data_path, detail=False)
    for file in sorted(files, key=lambda name: int(_FILE_NUMBER.findall(name)[-1])):
        with batch._fs.open(file, "rb") as stream:
            batch.data.append(pq.read_table(stream).to_pylist())
    batch._fs.rm(batch.data_path, recursive=True)


@patch("distilabel", VERSIONS, "_StepWrapper._non_generator_process_loop, Pipeline._error_callback")
class LoudStep(Step):
    """The base of eva's steps. Its error ends every local pipeline that it is in: `run` raises it.

    distilabel replaces the rows of a failed batch by rows of None and continues; after an error in a global step it returns an empty data
    set. Only stages count calls and tokens by row (`_statistics`), so that in other pipelines the column is left out.
    """

    _has_failed: bool = PrivateAttr(False)

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        if isinstance(self.pipeline, Pipeline) and not isinstance(self.pipeline, ThrowAwayPipeline):
            _raise_errors(self.pipeline)

    @property
    def is_global(self) -> bool:
        """distilabel ends the pipeline with a global step that fails."""
        return self._has_failed or super().is_global

    def process_applying_mappings(self, *arguments: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
        try:
            for rows in super().process_applying_mappings(*arguments):
                for row in rows:
                    if ROW not in row:
                        row.pop(STATISTICS, None)
                yield rows
        except Exception:
            self._has_failed = True
            raise


def _raise_errors(pipeline: Pipeline) -> None:
    """Let `pipeline.run` raise the error of a `LoudStep`."""
    report_error = pipeline._error_callback

    def end_with_error(error: BaseException) -> None:
        if isinstance(error, _StepWrapperException) and (error.is_load_error or not isinstance(error.step, LoudStep)):
            report_error(error)
            return
        cause = error.subprocess_exception if isinstance(error, _StepWrapperException) else error
        place = f"step {error.step.name}: " if isinstance(error, _StepWrapperException) else ""
        pipeline._exception = StageError(f"{place}{describe(cause)}")
        pipeline._exception.__cause__ = cause
        pipeline._stop()

    pipeline._error_callback = end_with_error


read_inputs_in_order()


@patch("distilabel", VERSIONS, "_BatchManagerStep.get_batch")
class WholeBatches(_BatchManagerStep):
    """The input of the last step: the batches of the step before it, as they are.

    distilabel cuts them to one size, and so divides the rows of a prompt between two part files where a prompt has several rows.
    """

    def get_batch(self) -> "_Batch | None":
        for batches in self.data.values():
            if batches:
                self.input_batch_size = len(batches[0].data[0])
        return super().get_batch()


@patch("distilabel", VERSIONS, "BasePipeline._load_batch_manager, _cache, _register_batch, signature; Pipeline._error_callback, _teardown")
class ThrowAwayPipeline(Pipeline):
    """A pipeline that is never resumed, because its rows are in part files, and that ends with the first of its steps.

    distilabel saves its state and the rows of every step as JSON after each batch, in folders that it names after digests of all settings,
    and leaves the last step's rows in the user's cache of data sets.
    """

    signature = aggregated_steps_signature = "attempt"

    def _load_batch_manager(self, use_cache: bool = True) -> None:
        super()._load_batch_manager(use_cache)
        inputs = self._batch_manager._steps
        for name in self.dag.leaf_steps:
            inputs[name] = WholeBatches(**vars(inputs[name]))

    def _cache(self) -> None:
        return

    def _register_batch(self, batch: _Batch) -> None:
        self._batch_manager.register_batch(batch)

    def _worker(self, step: Any, input_queue: Any, replica: int) -> StepWorker:
        queues = {"input_queue": input_queue, "output_queue": self._output_queue, "load_queue": self._load_queue}
        return StepWorker(step, replica, **queues)

    def _error_callback(self, e: BaseException) -> None:
        fail(describe(e))

    def _teardown(self) -> None:
        super()._teardown()
        for folder in (self._cache_location["data"] / STEPS_OUTPUTS_PATH).glob("*"):  # input of a data set that nothing uses
            shutil.rmtree(folder)


@patch("distilabel", VERSIONS, "LocalPipeline._run_step")
class ProcessPipeline(ThrowAwayPipeline):
    """A pipeline with a process per copy of a step, which ends with the first of its processes.

    distilabel waits for ever for a worker that was killed, exited, or raised `SystemExit` or `KeyboardInterrupt`.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._workers = Workers()

    def _run_output_queue_loop_in_thread(self) -> threading.Thread:
        self._workers.watch()  # all processes have started, and none has work yet
        return super()._run_output_queue_loop_in_thread()

    def _run_step(self, step: Any, input_queue: Any, replica: int) -> None:
        self._pool.apply_async(self._worker(step, input_queue, replica).run, error_callback=self._error_callback)

    def _teardown(self) -> None:
        self._workers.release()
        super()._teardown()


class _Queues:
    """What distilabel needs of multiprocessing's manager, within one process."""

    Queue = queue.Queue

    def shutdown(self) -> None:
        return

    join = shutdown


@patch("distilabel", VERSIONS, "LocalPipeline.run: mp.Manager, _NoDaemonPool; BasePipeline._handle_keyboard_interrupt")
class ThreadPipeline(ThrowAwayPipeline):
    """A pipeline whose steps run in threads of this process, and the first step after the source in the main thread.

    distilabel starts a process for each step and one for their queues, and copies all rows four times between them. Where one process
    is enough, that takes longer than the work of a small stage. Some libraries work in the main thread only (`signal.alarm`).
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._main_work: queue.Queue[StepWorker] = queue.Queue()
        self._has_main_work = False

    def run(self, *arguments: Any, **settings: Any) -> Any:
        distilabel.pipeline.local.mp = SimpleNamespace(Queue=queue.Queue, Manager=lambda: nullcontext(_Queues()))
        distilabel.pipeline.local._NoDaemonPool = lambda *_, **__: nullcontext()
        return super().run(*arguments, **settings)

    def _handle_keyboard_interrupt(self) -> None:
        """Leave SIGINT to Python. distilabel's handler waits for the steps to load, and so for ever where it interrupts their loading."""

    def _run_output_queue_loop_in_thread(self) -> threading.Thread:
        loop = super()._run_output_queue_loop_in_thread()  # it starts the steps
        self._work(self._main_work.get())
        return loop

    def _run_step(self, step: Any, input_queue: Any, replica: int) -> None:
        worker = self._worker(step, input_queue, replica)
        if step.is_generator or self._has_main_work:
            threading.Thread(target=self._work, args=(worker,), daemon=True, name=step.name).start()
        else:
            self._has_main_work = True
            self._main_work.put(worker)

    def _work(self, worker: StepWorker) -> None:
        try:
            worker.run()
        except StageError as error:
            self._error_callback(error)
