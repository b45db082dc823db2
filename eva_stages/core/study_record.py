"""`study.json`: the study that a folder holds, with everything that is needed to report it from the folder alone.

runs/<study>/study.json
runs/<study>/<arm>/<seed>/       one run per arm and seed
runs/<study>/results.json, results.csv, report.html
"""

import datetime
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from eva_stages.core.durable import write_whole
from eva_stages.core.errors import DamagedError
from eva_stages.core.kinds import Role, parsed_name
from eva_stages.core.ourfiles import read_json, rebuilt

STUDY_FILE = "study.json"
GENERATING_ROLES = frozenset({Role.RESPONSES, Role.EVOLUTIONS, Role.CONTEXT, Role.REWRITES, Role.POLICY})
"""Roles of the stages in which policy and evolver write, which on-policy training does too; those of evaluation and health are left out by
their side."""
COMMAND = "the `eva ablate` command that made the study; it writes the file again"

TOKENS = ("input_tokens", "output_tokens")
JUDGES = ("reward_output_tokens", "gate_output_tokens")
"""Tokens in the counts of an on-policy training that neither policy nor evolver generated."""


class Budget(BaseModel):
    """Where the arms are compared: after an iteration, or at a number of generated tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    iterations: int | None = None
    generated_tokens: float | None = None


class StudyRun(BaseModel):
    """One run of a study; `folder` is relative to the study's folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    arm: str
    seed: int
    folder: str


class StudyRecord(BaseModel):
    """A resolved study: nothing in it needs the recipe. Fields that a later version adds are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    question: str
    measure: str
    """Benchmark and score, joined by a point, such as lettercraft.exact."""
    seeds: tuple[int, ...]
    arms: Mapping[str, Mapping[str, Any]]
    """The overrides of each arm, in the study's order."""
    set: Mapping[str, Any] = {}
    """The overrides of all arms in the study's file; those of `--set` are in `command`."""
    contrasts: tuple[tuple[str, str], ...]
    """(a, b) is score a minus score b."""
    runs: tuple[StudyRun, ...]
    budget: Budget = Budget()
    """Without a value: after the last iteration that each run plans."""
    base: str = ""
    paper: str | None = None
    command: str | None = None
    """What reruns the study."""
    date: datetime.date | None = None
    """Today's date for chat templates that show one, in all runs; that of the study's first start."""


def generated_tokens(manifests: Iterable[Mapping[str, Any]]) -> int:
    """Tokens that policy and evolver generated in the stages of creator and solver among these manifests."""
    counts = [manifest["counts"] for manifest in manifests if is_generating(manifest["stage"])]
    return int(sum(stage_counts.get("output_tokens", 0) - sum(stage_counts.get(name, 0) for name in JUDGES) for stage_counts in counts))


def with_all_tokens(counts: Mapping[str, float]) -> dict[str, float]:
    """The counts of a training in which several models generate, with the tokens of all under the names that every stage has.

    The names of the tokens of models other than the policy have what the model does in front, as in `evolver_output_tokens`.
    """
    sums = {name: sum(count for key, count in counts.items() if key == name or key.endswith(f"_{name}")) for name in TOKENS}
    return {**counts, **{name: total for name, total in sums.items() if total}}


def is_generating(stage: str) -> bool:
    """Whether policy or evolver generate in a stage of that name, for training."""
    name = parsed_name(stage)
    return name.side is None and name.kind.role in GENERATING_ROLES


def read_study(folder: Path) -> StudyRecord:
    """The study that a folder holds.

    Raises:
        DamagedError: if the file is missing or has invalid content.
    """
    path = folder / STUDY_FILE
    try:
        return StudyRecord.model_validate(read_json(path, dict, COMMAND))
    except ValidationError as error:
        places = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise DamagedError(f"{path} is damaged: {places}", COMMAND) from error


def earlier_study(folder: Path) -> StudyRecord | None:
    """The study of an earlier start in a folder; None if there was none, or its file is damaged and is to be written again."""
    if not (folder / STUDY_FILE).is_file():
        return None
    return rebuilt(lambda: read_study(folder), None, "it is written again, with today's date for chat templates that show one")


def write_study(folder: Path, study: StudyRecord) -> None:
    """Write `study.json`; the same study gives the same bytes."""
    write_whole(folder / STUDY_FILE, study.model_dump_json(indent=1) + "\n")
