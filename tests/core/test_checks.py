"""Limits of a stage's figures: held against them when it is done and whenever it is used again, and no part of its identity."""

from pathlib import Path
from typing import Any

import pytest

from eva_stages.core.errors import StageError
from eva_stages.core.progress import Reporter
from eva_stages.core.run_folder import Run
from eva_stages.core.runner import Context, execute
from eva_stages.core.stage import Check, FunctionStage, Use


def measure(context: Context, value: float | None) -> dict[str, Any]:
    context.artifact.mkdir()
    (context.artifact / "figures.json").write_text(str(value))
    return {"figures": {"heat": value}}


def stage(value: float | None, limit: float, stop: bool, is_maximum: bool = True) -> FunctionStage:
    check = Check("heat", limit, is_maximum, stop, "heat of the engine (degrees)", "it may be on fire; cool it", "health.heat")
    return FunctionStage("health", 1, {}, function=Use("tests.core.test_checks:measure", {"value": value}), checks=(check,))


def test_a_broken_check_stops_new_and_reused_stages_and_another_limit_runs_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.create()
    says = (
        r"after iteration 1: heat of the engine \(degrees\) is 90, above the limit health\.heat=80: it may be on fire.*--set health\.heat="
    )
    for _ in range(2):
        with pytest.raises(StageError, match=says):
            execute(run, [stage(90, 80, stop=True)], Reporter())
    assert [event["event"] for event in run.events()] == ["start", "done", "stopped", "stopped"]
    execute(run, [stage(90, 100, stop=True)], Reporter())
    assert len(run.events()) == 4 and stage(90, 80, stop=True).fingerprint == stage(90, 100, stop=False).fingerprint


@pytest.mark.parametrize(
    ("value", "is_maximum", "is_reported"), [(90, True, True), (80, True, False), (70, False, True), (None, True, False)]
)
def test_a_check_that_does_not_stop_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: float | None, is_maximum: bool, is_reported: bool
) -> None:
    run = Run(tmp_path / "run")
    run.create()
    for _ in range(2):
        execute(run, [stage(value, 80, stop=False, is_maximum=is_maximum)], Reporter())
        assert ("1-health: warning: heat of the engine" in capsys.readouterr().err) is is_reported
