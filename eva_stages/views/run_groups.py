"""Runs grouped by arm: the runs of a study belong to its arms, every other run is an arm of its own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eva_stages.core.errors import ConfigError, DamagedError
from eva_stages.core.study_record import STUDY_FILE, read_study
from eva_stages.views.history import History
from eva_stages.views.study_document import document_of
from eva_stages.views.study_runs import read_run


def runs_by_arm(histories: Sequence[History]) -> dict[str, list[History]]:
    """The runs by the names of their arms, in the given order: ARM, or STUDY/ARM if not all are of one study."""
    folders = {_study_folder(history) for history in histories}
    has_one_study = len(folders) == 1 and None not in folders
    groups: dict[str, list[History]] = {}
    for history in histories:
        name = history.name.rpartition("/")[0] or history.name
        groups.setdefault(name.partition("/")[2] if has_one_study else name, []).append(history)
    return groups


def partial_study(histories: Sequence[History]) -> dict[str, Any] | None:
    """The document of the study that the runs belong to, of these runs alone and of the seeds that all their arms have.

    None if they are not of one study, of one arm, or have fewer than two seeds in common: then runs can be compared, but not arms.
    """
    folder = _study_folder(histories[0])
    groups = runs_by_arm(histories)
    if folder is None or len(groups) < 2 or any(_study_folder(history) != folder for history in histories):
        return None
    study = read_study(folder)
    names = [_place_in_study(history) for history in histories]
    runs = [run for run in study.runs if run.folder in names]
    seeds = set.intersection(*({run.seed for run in runs if run.arm == arm} for arm in groups)) if runs else set()
    if len(seeds) < 2:
        return None
    contrasts = tuple((a, b) for a, b in study.contrasts if a in groups and b in groups)
    first, *other_arms = groups
    part = study.model_copy(
        update={
            "arms": {arm: study.arms[arm] for arm in groups},
            "seeds": tuple(seed for seed in study.seeds if seed in seeds),
            "contrasts": contrasts or tuple((arm, first) for arm in other_arms),
            "runs": tuple(run for run in runs if run.seed in seeds),
        }
    )
    try:
        return document_of(part, [read_run(folder / run.folder, run, part) for run in part.runs])
    except (ConfigError, DamagedError):  # `eva ablate` reports what is wrong with the study; the runs can be shown without it
        return None


def omitted_runs(document: Mapping[str, Any], histories: Sequence[History]) -> list[str]:
    """The runs whose seed not all arms have."""
    compared_folders = {entry["folder"] for entry in document["runs"]}
    return [history.name for history in histories if _place_in_study(history) not in compared_folders]


def _place_in_study(history: History) -> str:
    return "/".join(history.root.resolve().parts[-2:])


def _study_folder(history: History) -> Path | None:
    root = history.root.resolve()
    folder = root.parents[min(1, len(root.parents) - 1)]
    return folder if (folder / STUDY_FILE).is_file() else None
