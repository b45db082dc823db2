"""The usual table stage."""

from collections.abc import Mapping
from typing import Any

from eva_stages.core.stage import Stage, TableStage, Use


def table_stage(
    name: str, iteration: int, inputs: Mapping[str, Stage], target: str, settings: Mapping[str, Any] | None = None, version: int = 1
) -> TableStage:
    """A table stage that reads the rows of all its inputs."""
    return TableStage(name, iteration, inputs, version, sources=tuple(inputs), step=Use(target, settings or {}))
