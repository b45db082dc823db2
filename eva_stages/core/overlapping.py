"""The stages of one run, two at a time: the policy of an iteration is evaluated while the next iteration is computed.

The stages that a training needs run in their order, as if they were alone. The others use what those leave of the cores. Which stages run
at the same time changes no result: each has the same settings, threads included, as when it runs alone.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack

import psutil

from eva_stages.core.config.engine_config import Engine, LocalEngine
from eva_stages.core.devices import cpu_cores, has_accelerator
from eva_stages.core.job_context import NICENESS, interruption, job
from eva_stages.core.kinds import Role
from eva_stages.core.ledger import planned_seconds, tree_bytes
from eva_stages.core.progress import Reporter
from eva_stages.core.run_folder import Run
from eva_stages.core.runner import complete_stage, completed_stages, reported_wait
from eva_stages.core.stage import RUN, WORK, FunctionStage, Outside, Stage, closure, uses

STAGES_AT_A_TIME = 2
RETRY_SECONDS = 1.0
"""Between two tries at a stage that another process has locked."""
NICENESS_BESIDE = "5"
"""Of the stages that no training needs, until the trainings are complete: a training has three quarters of a core that it shares."""
MOST_BYTES = 1 << 30
"""Of the models and files of a recipe: two larger models at a time might not fit into memory."""
MEMORY_PER_BYTE = 16
"""Free memory that two stages need for each of these bytes: training holds weights, gradients and moments as float32."""


def can_overlap(stages: Iterable[Stage], engine: Engine) -> bool:
    """Whether two stages of a run may run at a time: on this machine's processor, with small models, where no stage pays for calls.

    Two models would share an accelerator's memory, and after a failed stage nothing more is to be paid for.
    """
    all_stages = closure(list(stages))
    if not isinstance(engine, LocalEngine) or cpu_cores() < STAGES_AT_A_TIME or has_accelerator():
        return False
    if any(use.needs(WORK) or use.needs(RUN) for stage in all_stages for use in uses(stage)):  # it saves paid calls there
        return False
    files = {source.path for stage in all_stages for source in stage.inputs.values() if isinstance(source, Outside)}
    size = sum(tree_bytes(path) if path.is_dir() else path.stat().st_size for path in files)
    return size <= min(MOST_BYTES, psutil.virtual_memory().available // MEMORY_PER_BYTE)


def execute_overlapping(run: Run, stages: Iterable[Stage], reporter: Reporter, engine: Engine, repair: bool) -> None:
    """`execute`, two stages at a time. A stage that fails interrupts the other one; the next start resumes both.

    No stage starts before the earlier ones that may stop the run are complete.
    """
    _Overlap(run, closure(list(stages)), reporter, engine, repair).complete()


class _Overlap:
    def __init__(self, run: Run, stages: Sequence[Stage], reporter: Reporter, engine: Engine, repair: bool) -> None:
        self._run, self._stages, self._reporter, self._engine, self._repair = run, stages, reporter, engine, repair
        trainings = [stage for stage in stages if stage.kind.role == Role.POLICY]
        self._needed_fingerprints = {stage.fingerprint for stage in closure(trainings)}
        """Of the stages that a training needs."""
        self._logged_stages = completed_stages(run)
        self._complete_fingerprints: set[str] = set()
        self._tasks: dict[Future[None], Stage] = {}

    def complete(self) -> None:
        with self._reporter.run(self._stages, planned_seconds(self._run.root)), ThreadPoolExecutor(STAGES_AT_A_TIME, "stage") as pool:
            try:
                while len(self._complete_fingerprints) < len(self._stages):
                    while len(self._tasks) < STAGES_AT_A_TIME and (stage := self._next_stage()):
                        self._tasks[pool.submit(self._work, stage)] = stage
                    for task in wait(self._tasks, return_when=FIRST_COMPLETED).done:
                        stage = self._tasks.pop(task)
                        task.result()
                        self._complete_fingerprints.add(stage.fingerprint)
            except BaseException:
                interruption.set()  # the other thread ends its process
                pool.shutdown()
                interruption.clear()  # not before: a second Ctrl-C during the shutdown must not let the thread continue
                raise

    def _next_stage(self) -> Stage | None:
        """A stage that can start: the first that a training needs, or else the first."""
        running_fingerprints = {stage.fingerprint for stage in self._tasks.values()}
        ready_stages = []
        for stage in self._stages:
            if stage.fingerprint in self._complete_fingerprints:
                continue
            if stage.fingerprint not in running_fingerprints and self._has_inputs(stage):
                ready_stages.append(stage)
            if isinstance(stage, FunctionStage) and any(check.stop for check in stage.checks):
                break
        return min(ready_stages, key=lambda stage: stage.fingerprint not in self._needed_fingerprints, default=None)

    def _has_inputs(self, stage: Stage) -> bool:
        sources = [source for source in stage.inputs.values() if isinstance(source, Stage)]
        return all(source.fingerprint in self._complete_fingerprints for source in sources)

    def _work(self, stage: Stage) -> None:
        """In a thread: complete a stage."""
        is_waiting = False
        is_beside = stage.fingerprint not in self._needed_fingerprints and not self._needed_fingerprints <= self._complete_fingerprints
        with job({NICENESS: NICENESS_BESIDE} if is_beside else {}), ExitStack() as waiting:
            while holder := complete_stage(self._run, stage, self._reporter, self._engine, self._repair, self._logged_stages, wait=False):
                if not is_waiting:
                    waiting.enter_context(reported_wait(self._run, stage, self._reporter, holder))
                    is_waiting = True
                if interruption.wait(RETRY_SECONDS):
                    raise KeyboardInterrupt
