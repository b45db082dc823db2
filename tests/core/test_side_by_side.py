"""Runs side by side: what one run's failure or limit means for the others, and that runs of an earlier start begin first."""

from pathlib import Path

from eva_stages.core.progress import Reporter
from eva_stages.core.run_folder import Run
from eva_stages.core.runner import LOCAL, execute
from eva_stages.core.side_by_side import PlannedRun, complete_runs
from eva_stages.core.stage import FunctionStage, Stage, Use
from eva_stages.core.study_progress import StudyReporter
from tests.core.test_checks import stage as limited_stage

LABELS = ("a/1", "b/1", "c/1")
FAILING = FunctionStage("odd", 0, {}, function=Use("tests.core.test_side_by_side:nothing"))


class ListedRun(PlannedRun):
    """A run of the given stages; `order` takes its label when it begins."""

    def __init__(self, folder: Path, label: str, stages: list[Stage], order: list[str]) -> None:
        super().__init__(label, Run(folder / label, folder / ".store"), LOCAL)
        self._stages, self._order = stages, order

    @property
    def stages(self) -> list[Stage]:
        return self._stages

    def begin(self) -> None:
        if self.label not in self._order:
            self.run.create()
            self._order.append(self.label)

    def advance(self) -> None:
        self._stages = self._stages[1:]

    def end(self) -> None:
        return


def complete(folder: Path, stages: list[list[Stage]], jobs: int = 2) -> tuple[dict[str, str], list[str]]:
    """The failures, and the runs in the order in which they began."""
    order: list[str] = []
    runs = [ListedRun(folder, label, own_stages, order) for label, own_stages in zip(LABELS, stages, strict=False)]
    return complete_runs(runs, [{}] * jobs, StudyReporter(LABELS)), order


def test_a_stage_that_fails_is_tried_once_and_fails_every_run_that_needs_it(tmp_path: Path) -> None:
    failures, _ = complete(tmp_path, [[FAILING], [FAILING], [limited_stage(1, 80, stop=True)]])
    assert failures.keys() == {"a/1", "b/1"} and failures["a/1"].startswith("stage 0-odd failed") and failures["b/1"] in failures["a/1"]
    events = [[event["event"] for event in Run(tmp_path / label).events()] for label in LABELS]
    assert events == [["start", "failed"], ["failed"], ["start", "done"]]


def test_a_limit_stops_only_the_runs_that_have_it(tmp_path: Path) -> None:
    failures, _ = complete(tmp_path, [[limited_stage(90, limit, stop=True)] for limit in (80, 100, 70)], jobs=1)
    assert failures.keys() == {"a/1", "c/1"}
    assert "above the limit health.heat=80" in failures["a/1"] and "above the limit health.heat=70" in failures["c/1"]


def test_runs_of_an_earlier_start_begin_before_anything_is_computed(tmp_path: Path) -> None:
    late_run = Run(tmp_path / "c/1", tmp_path / ".store")
    late_run.create()
    execute(late_run, [limited_stage(1, 80, stop=True)], Reporter())
    _, order = complete(tmp_path, [[limited_stage(2, 80, stop=True)] for _ in LABELS], jobs=1)
    assert order == ["c/1", "a/1", "b/1"]
