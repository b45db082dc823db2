"""The recipes that were run in one folder: each is kept, so that results which the present one does not have are told, and can be shown.

A variant is a set of stages. It has a file in `variants/` of the run's folder, named after what its stages are: the recipe, from which the
same command makes its tables again, and beside it the list of its stages' folders.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva_stages.core.durable import write_whole
from eva_stages.core.errors import DamagedError
from eva_stages.core.fingerprint import fingerprint
from eva_stages.core.kinds import folder_label
from eva_stages.core.ourfiles import read_yaml
from eva_stages.core.planned_stages import PLAN, read_planned_stages, write_planned_stages
from eva_stages.core.run_folder import Run
from eva_stages.core.stage import Stage

VARIANTS = "variants"
SHOWN = 3


@dataclass(frozen=True)
class Variant:
    """A recipe that was run in the folder before, with finished stages that the present one does not have."""

    recipe: Path | None
    """None where it was not kept: such stages are of another version of eva, or of an input that has changed."""
    stages: tuple[str, ...]
    """Those finished stages, by folder."""
    changes: tuple[str, ...]
    """Fields that it has otherwise, as `--set` takes them."""

    def said(self, root: Path) -> str:
        """What there is of it, and where, in a sentence."""
        names = ", ".join(folder_label(name) for name in self.stages[:SHOWN])
        more = f" and {len(self.stages) - SHOWN} more" if len(self.stages) > SHOWN else ""
        what = f"{len(self.stages)} finished stages in {root / 'stages'} do not belong to the present recipe: {names}{more}"
        if self.recipe is None:
            return f"{what}. They were made by another version of eva, from other inputs, or with a recipe that was not kept"
        changes = f" ({', '.join(self.changes[:SHOWN])}{', ...' if len(self.changes) > SHOWN else ''})" if self.changes else ""
        return f"{what}, but to another one{changes}. Its results are shown by: eva run {self.recipe} --run-dir {root}"


def keep_variant(run: Run, stages: Iterable[Stage], recipe: str) -> None:
    """Keep a recipe (its text) with the list of its stages."""
    stages, folder = list(stages), run.root / VARIANTS
    folder.mkdir(exist_ok=True)
    name = fingerprint([stage.folder for stage in stages])[:12]
    write_whole(folder / f"{name}.yaml", recipe)
    write_planned_stages(folder / f"{name}.json", stages)


def other_variants(run: Run) -> list[Variant]:
    """Those with finished stages that the present recipe does not have, and last the finished stages that no kept recipe has."""
    try:
        present = _folders(run.root / PLAN)
    except DamagedError:
        return []
    finished = sorted(path.parent.name for path in run.stages.glob("*/manifest.json"))
    unknown = [name for name in finished if name not in present]
    found = []
    for path in sorted((run.root / VARIANTS).glob("*.json")):
        try:
            names, recipe = _folders(path), read_yaml(path.with_suffix(".yaml"))
            changes = tuple(_changes(recipe, read_yaml(run.root / "recipe.yaml")))
        except DamagedError:
            continue
        if own := tuple(name for name in finished if name in names - present):
            found.append(Variant(path.with_suffix(".yaml"), own, changes))
            unknown = [name for name in unknown if name not in names]
    return [*found, *([Variant(None, tuple(unknown), ())] if unknown else [])]


def _folders(plan: Path) -> set[str]:
    return {stage.folder for stage in read_planned_stages(plan)}


def _changes(one: Any, other: Any, place: str = "") -> Iterator[str]:
    """The fields that a recipe has otherwise than another."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in one:
            yield from _changes(one[name], other.get(name), f"{place}.{name}" if place else name)
    elif one != other:
        yield f"{place}={json.dumps(one, ensure_ascii=False)[:60]}"
