"""Several runs side by side, each stage in a thread: a stage that runs have in common is computed once, and no thread waits for it.

The main thread assigns stages to threads; nothing else changes the state of a run. A run that fails does not stop the others.
"""

import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from eva_stages.core.config.engine_config import Engine
from eva_stages.core.errors import ConfigError, DamagedError, EvaError, StageError, describe
from eva_stages.core.job_context import interruption, job
from eva_stages.core.logs import save_traceback
from eva_stages.core.run_folder import Run
from eva_stages.core.runner import complete_stage
from eva_stages.core.stage import Stage
from eva_stages.core.study_progress import StudyReporter

RETRY_SECONDS = 1.0
"""Between two tries at stages that other processes have locked; also between two updates of the progress."""


class PlannedRun(ABC):
    """A run that is completed stage by stage."""

    def __init__(self, label: str, run: Run, engine: Engine) -> None:
        self.label, self.run, self.engine = label, run, engine
        self.logged_stages: set[str] = set()

    @property
    @abstractmethod
    def stages(self) -> Sequence[Stage]:
        """The next stages, upstream first, as far as they are known; empty if the run is complete."""

    @abstractmethod
    def begin(self) -> None:
        """Lock and record the run, and read `logged_stages`. Called before each stage; does nothing after the first time."""

    @abstractmethod
    def advance(self) -> None:
        """The next stage is complete."""

    @abstractmethod
    def end(self) -> None:
        """Release the run's lock."""


class _Scheduler:
    def __init__(
        self, runs: Sequence[PlannedRun], environments: Sequence[Mapping[str, str]], reporter: StudyReporter, repair: bool
    ) -> None:
        self._runs, self._environments, self._reporter, self._repair = runs, environments, reporter, repair
        self._idle_runs = list(runs)
        self._free_threads = list(range(len(environments)))
        self._tasks: dict[Future[str | None], tuple[PlannedRun, Stage, int]] = {}
        self._locked_times: dict[str, float] = {}
        """When other processes had locked a stage, by its fingerprint."""
        self._failed_stages: dict[str, str] = {}
        """Causes by the fingerprint of the stage."""
        self.failures: dict[str, str] = {}
        """Causes by the label of the run."""

    def complete(self) -> None:
        with ThreadPoolExecutor(len(self._environments), "job") as pool:
            try:
                self._begin_earlier_runs()
                while self._idle_runs or self._tasks:
                    self._start_stages(pool)
                    if self._tasks:
                        for task in wait(self._tasks, RETRY_SECONDS, FIRST_COMPLETED).done:
                            self._settle(task)
                    elif self._idle_runs:
                        interruption.wait(RETRY_SECONDS)  # other processes have locked all stages that are next
                    self._reporter.show(self._idle_runs, [run for run, *_ in self._tasks.values()], len(self._environments))
            except BaseException:
                interruption.set()  # the other threads end their processes
                raise

    def _begin_earlier_runs(self) -> None:
        """Begin the runs of earlier starts: however this start ends, no folder shows the scores of another recipe than the study's."""
        for run in [run for run in self._runs if run.run.root.is_dir()]:
            try:
                run.begin()
            except Exception as error:
                self._end_run(run, _cause(error, run.run.root))

    def _start_stages(self, pool: ThreadPoolExecutor) -> None:
        """Give each free thread the next stage of the first run that has one to compute."""
        for run in [run for run in self._idle_runs if not run.stages]:
            self._end_run(run)
        for run in list(self._idle_runs):
            stage = run.stages[0]
            if cause := self._failed_stages.get(stage.fingerprint):
                self._fail_with(run, stage, cause)
                continue
            is_locked = time.monotonic() - self._locked_times.get(stage.fingerprint, -math.inf) < RETRY_SECONDS
            is_running = any(stage.fingerprint == other_stage.fingerprint for _, other_stage, _ in self._tasks.values())
            if self._free_threads and not is_locked and not is_running:
                thread = self._free_threads.pop(0)
                self._idle_runs.remove(run)
                self._tasks[pool.submit(self._work, run, stage, thread)] = run, stage, thread

    def _work(self, run: PlannedRun, stage: Stage, thread: int) -> str | None:
        """In a thread: complete a stage of a run; returns the process that has locked the stage, if another one has."""
        with job(self._environments[thread]):
            run.begin()
            reporter = self._reporter.of_run(run.label)
            try:
                holder = complete_stage(run.run, stage, reporter, run.engine, self._repair, run.logged_stages, wait=False)
            except StageError as error:
                if not run.run.holds(stage):  # else a limit of the run stops it, and other runs may have other limits
                    self._failed_stages[stage.fingerprint] = describe(error)
                raise
            if holder is None:
                self._reporter.count(stage, run.run.manifest(stage))
                run.advance()
            return holder

    def _settle(self, task: Future[str | None]) -> None:
        run, stage, thread = self._tasks.pop(task)
        self._free_threads.append(thread)
        error = task.exception()
        if error is None:
            place = next((index for index, other_run in enumerate(self._idle_runs) if self._precedes(run, other_run)), len(self._idle_runs))
            self._idle_runs.insert(place, run)
            if (holder := task.result()) is not None:
                if stage.fingerprint not in self._locked_times:
                    self._reporter.report_lock(stage, holder)
                self._locked_times[stage.fingerprint] = time.monotonic()
            return
        if not isinstance(error, Exception | SystemExit | GeneratorExit):
            raise error
        self._end_run(run, _cause(error, run.run.root))

    def _precedes(self, run: PlannedRun, other_run: PlannedRun) -> bool:
        return self._runs.index(run) < self._runs.index(other_run)

    def _fail_with(self, run: PlannedRun, stage: Stage, cause: str) -> None:
        """A stage of the run has failed in another run, and would fail again."""
        try:
            run.begin()
            run.run.event("failed", stage=stage.label, fingerprint=stage.fingerprint, cause=cause.splitlines()[0])
        except (EvaError, OSError):
            pass  # the run is reported as failed in any case
        self._end_run(run, cause)

    def _end_run(self, run: PlannedRun, cause: str | None = None) -> None:
        if run in self._idle_runs:
            self._idle_runs.remove(run)
        run.end()
        if cause is not None:
            self.failures[run.label] = cause
        self._reporter.end_run(run.label, cause)


def _cause(error: BaseException, root: Path) -> str:
    match error:
        case ConfigError():
            return "; ".join(error.faults)
        case DamagedError():
            return f"{describe(error)}; repair with: {error.command or 'the same command and --repair'}"
        case EvaError():
            return describe(error)
    return f"{describe(error)}; the traceback is in {save_traceback(error, root if root.is_dir() else None)}"


def complete_runs(
    runs: Sequence[PlannedRun], environments: Sequence[Mapping[str, str]], reporter: StudyReporter, repair: bool = False
) -> dict[str, str]:
    """Complete runs side by side.

    Args:
        runs: those that come first are completed first.
        environments: of each thread; as many stages run at a time.
        repair: as for `execute`.

    Returns:
        The causes of failed runs by their labels.
    """
    assert threading.current_thread() is threading.main_thread()
    scheduler = _Scheduler(runs, environments, reporter, repair)
    try:
        with reporter.live():
            scheduler.complete()
    finally:
        interruption.clear()  # all threads have ended, and a Python program may start other runs
        for run in runs:
            run.end()
    return scheduler.failures
