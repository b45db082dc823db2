"""`stages.json`: the stages of a run's recipe, upstream first, with what a reader needs to show them without the recipe."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from eva_stages.core.durable import write_whole
from eva_stages.core.errors import DamagedError
from eva_stages.core.kinds import StageName, folder_label, parsed_label, parsed_name
from eva_stages.core.manifests import artifact_name
from eva_stages.core.ourfiles import read_json
from eva_stages.core.stage import Check, FunctionStage, RowStage, Stage

PLAN = "stages.json"
FOLDER_DIGITS = 12
"""Hex digits of the fingerprint that end the name of a stage's folder."""
_FOLDER = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class PlannedStage:
    """One stage of a run's recipe. Runs of eva 0.1.0 recorded the folder only."""

    folder: str
    """The artifact's folder below `stages/`."""
    iteration: int
    name: str
    fingerprint: str
    """All of it, or the digits in the folder's name, where only the folder is recorded."""
    unit: str = "rows"
    """What its progress counts: rows or steps."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """The folders of its inputs below `stages/`, or the names of inputs that eva did not build."""
    counted_input: str | None = None
    """The input that has one row for each row that the stage computes; None for stages that are no row stages."""
    checks: tuple[Check, ...] = ()

    @property
    def label(self) -> str:
        return f"{self.iteration}-{self.name}"

    @property
    def is_described(self) -> bool:
        """Whether more than the folder is recorded."""
        return len(self.fingerprint) > FOLDER_DIGITS

    @property
    def parsed_name(self) -> StageName:
        return parsed_name(self.name)


def planned_stage(stage: Stage) -> PlannedStage:
    """What is recorded of a stage."""
    return PlannedStage(
        stage.folder,
        stage.iteration,
        stage.name,
        stage.fingerprint,
        stage.kind.unit,
        {name: artifact_name(upstream) for name, upstream in stage.inputs.items()},
        stage.sources[0] if isinstance(stage, RowStage) else None,
        stage.checks if isinstance(stage, FunctionStage) else (),
    )


def write_planned_stages(path: Path, stages: Iterable[Stage]) -> None:
    """Write them; kind, benchmark and side, which the name says, are for readers outside eva."""
    entries = [
        {**asdict(planned_stage(stage)), "kind": stage.kind.name, "role": stage.kind.role, "benchmark": stage.benchmark, "side": stage.side}
        for stage in stages
    ]
    write_whole(path, json.dumps(entries, indent=1, ensure_ascii=False) + "\n")


def read_planned_stages(path: Path) -> list[PlannedStage]:
    """The stages that a run's `stages.json`, or a variant's, lists.

    Raises:
        DamagedError: if it does not list stages.
    """
    try:
        return [_read(entry) for entry in read_json(path, list)]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, DamagedError):
            raise
        raise DamagedError(f"{path} is damaged: it does not list stages ({error})") from error


def stage_of_folder(folder: str) -> PlannedStage:
    """What the name of a stage's folder says.

    Raises:
        ValueError: if it is no such name.
    """
    iteration, name = parsed_label(folder_label(folder))
    if iteration is None or not name or not _FOLDER.fullmatch(folder):
        raise ValueError(f"{folder[:80]!r} is not the name of a stage's folder")
    return PlannedStage(folder, iteration, name, folder.rpartition("-")[2])


def _read(entry: Any) -> PlannedStage:
    if isinstance(entry, str):
        return stage_of_folder(entry)
    stage = stage_of_folder(str(entry["folder"]))
    inputs = {str(name): str(upstream) for name, upstream in entry["inputs"].items()}
    checks = tuple(Check(**check) for check in entry["checks"])
    return replace(
        stage,
        fingerprint=str(entry["fingerprint"]),
        unit=str(entry["unit"]),
        inputs=inputs,
        counted_input=entry["counted_input"],
        checks=checks,
    )
