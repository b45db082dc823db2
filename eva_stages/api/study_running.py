"""The runs of a study, as `complete_runs` completes them."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from eva_stages.api.recording import record_run
from eva_stages.api.run_completion import missing_devices
from eva_stages.core.durable import writing_to
from eva_stages.core.errors import StageError
from eva_stages.core.rounds import stages_of
from eva_stages.core.run_folder import Run
from eva_stages.core.runner import completed_stages
from eva_stages.core.side_by_side import PlannedRun
from eva_stages.core.stage import Stage
from eva_stages.core.study_record import StudyRecord, earlier_study, generated_tokens, write_study
from eva_stages.core.terminal import note
from pipelines.ablation import ArmRun


def write_record(folder: Path, record: StudyRecord) -> None:
    """Write `study.json`, with a notice if the folder holds runs of another study. The caller holds the folder's lock."""
    if (earlier_record := earlier_study(folder)) is not None:
        if other_arms := [arm for arm in earlier_record.arms if record.arms.get(arm) != earlier_record.arms[arm]]:
            note(f"{folder}: arms have changed since the last start, or were removed: {', '.join(other_arms)}; their artifacts remain")
        if record.base != earlier_record.base:
            note(f"{folder}: the base was {earlier_record.base} and is now {record.base}; artifacts of the earlier base remain")
    write_study(folder, record)


class RunOfStudy(PlannedRun):
    """One run. With a budget of tokens it has no iteration after the one that reaches them.

    Args:
        root: folder of the run.
        tokens: generated tokens; None: the run has the iterations of its recipe.
    """

    def __init__(self, arm_run: ArmRun, root: Path, store: Path, tokens: float | None) -> None:
        super().__init__(arm_run.label, Run(root, store), arm_run.recipe.runtime.engine)
        self._arm_run, self._tokens = arm_run, tokens
        self._lock = ExitStack()
        self._is_begun = False
        self._plan(arm_run.recipe.iterations if tokens is None else 0)

    def _plan(self, iterations: int) -> None:
        self._iterations, self._rounds = iterations, self._arm_run.rounds(iterations)
        self._stages = stages_of(self._rounds)
        self._remaining_stages = list(self._stages)

    @property
    def stages(self) -> list[Stage]:
        return self._remaining_stages

    def missing_devices(self) -> Iterator[str]:
        return missing_devices(self._arm_run.recipe, self.run, self._stages)

    def begin(self) -> None:
        if self._is_begun:
            return
        with writing_to(self.run.root):
            self.run.create()
            self._lock.enter_context(self.run.lock())
            while not self._is_last_iteration and all(map(self.run.is_complete, self._stages)) and self._needs_iteration():
                self._plan(self._iterations + 1)
            self._record()
        self.logged_stages = completed_stages(self.run)
        self._is_begun = True

    def _record(self) -> None:
        recipe = self._arm_run.recipe.model_copy(update={"iterations": self._iterations})
        record_run(self.run, recipe, self._arm_run.resolved, self._rounds)

    def advance(self) -> None:
        if len(self._remaining_stages) > 1 or not self._needs_iteration():
            self._remaining_stages = self._remaining_stages[1:]
            return
        if self._is_last_iteration:
            amounts = f"{self._generated_tokens():,} of {self._tokens:,.0f} generated tokens"
            advice = "raise budget.iterations, or lower budget.generated_tokens"
            raise StageError(f"the run ends after {self._iterations} iterations with {amounts}; {advice}")
        complete_stages = {stage.fingerprint for stage in self._stages}
        self._plan(self._iterations + 1)
        self._remaining_stages = [stage for stage in self._stages if stage.fingerprint not in complete_stages]
        self._record()

    @property
    def _is_last_iteration(self) -> bool:
        return self._iterations == self._arm_run.recipe.iterations

    def _needs_iteration(self) -> bool:
        """Whether the planned stages, which are complete, generated fewer tokens than the budget."""
        return self._tokens is not None and self._generated_tokens() < self._tokens

    def _generated_tokens(self) -> int:
        return generated_tokens(self.run.manifest(stage) for stage in self._stages)

    def end(self) -> None:
        self._lock.close()
