"""What a run measured of an iteration's health, and which of it is outside the recipe's limits."""

from typing import Any

from eva_stages.core.run_folder import Run
from eva_stages.core.stage import FunctionStage, Stage


def health_of(run: Run, stage: Stage | None) -> dict[str, Any] | None:
    """The figures of a finished health stage with a warning for each that is outside its limit; None for other stages."""
    if not isinstance(stage, FunctionStage) or not run.done(stage):
        return None
    figures = run.manifest(stage).get("figures")
    if figures is None:
        return None
    return {"figures": figures, "warnings": [warning for check in stage.checks if (warning := check.broken(figures))]}


def counted(warnings: list[str]) -> str:
    """The number of warnings in a word or two; empty for none."""
    return f"{len(warnings)} warning{'s' if len(warnings) > 1 else ''}" if warnings else ""
