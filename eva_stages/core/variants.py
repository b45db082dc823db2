"""The recipes that were run in one folder. Each is saved, so that results which do not belong to the present recipe are reported and shown.

A variant is a recipe and its list of stages, saved in `variants/` of the run's folder under the fingerprint of the list. Running the saved
recipe shows its results again.
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
SHOWN_COUNT = 3


@dataclass(frozen=True)
class Variant:
    """A recipe that was run in the folder, with complete stages that the present recipe does not have."""

    recipe: Path | None
    """None: the stages were computed by another version of eva or from inputs that have changed since, and the recipe is unknown."""
    stages: tuple[str, ...]
    """The folders of these complete stages."""
    changes: tuple[str, ...]
    """The fields that differ from the present recipe, in the form of `--set`."""

    def description(self, root: Path) -> str:
        """A description of its stages, and how to show its results."""
        names = ", ".join(folder_label(name) for name in self.stages[:SHOWN_COUNT])
        rest = f" and {len(self.stages) - SHOWN_COUNT} more" if len(self.stages) > SHOWN_COUNT else ""
        description = f"{len(self.stages)} complete stages in {root / 'stages'} do not belong to the present recipe: {names}{rest}"
        if self.recipe is None:
            return f"{description}. They were computed by another version of eva, from other inputs, or from a recipe that was not saved"
        changes = f" ({', '.join(self.changes[:SHOWN_COUNT])}{', ...' if len(self.changes) > SHOWN_COUNT else ''})" if self.changes else ""
        return f"{description}, but to another recipe{changes}. Show its results with: eva run {self.recipe} --run-dir {root}"


def keep_variant(run: Run, stages: Iterable[Stage], recipe: str) -> None:
    """Save a recipe (its text) with the list of its stages."""
    stages, folder = list(stages), run.root / VARIANTS
    folder.mkdir(exist_ok=True)
    name = fingerprint([stage.folder for stage in stages])[:12]
    write_whole(folder / f"{name}.yaml", recipe)
    write_planned_stages(folder / f"{name}.json", stages)


def other_variants(run: Run) -> list[Variant]:
    """The variants with complete stages that the present recipe does not have; last, the complete stages of unknown recipes."""
    try:
        present = _folders(run.root / PLAN)
    except DamagedError:
        return []
    complete_folders = sorted(path.parent.name for path in run.stages.glob("*/manifest.json"))
    unknown = [name for name in complete_folders if name not in present]
    variants = []
    for path in sorted((run.root / VARIANTS).glob("*.json")):
        try:
            names, recipe = _folders(path), read_yaml(path.with_suffix(".yaml"))
            changes = tuple(_changes(recipe, read_yaml(run.root / "recipe.yaml")))
        except DamagedError:
            continue
        if own_folders := tuple(name for name in complete_folders if name in names - present):
            variants.append(Variant(path.with_suffix(".yaml"), own_folders, changes))
            unknown = [name for name in unknown if name not in names]
    return [*variants, *([Variant(None, tuple(unknown), ())] if unknown else [])]


def _folders(plan: Path) -> set[str]:
    return {stage.folder for stage in read_planned_stages(plan)}


def _changes(recipe: Any, present_recipe: Any, place: str = "") -> Iterator[str]:
    """The fields of a recipe that differ from the present one."""
    if isinstance(recipe, dict) and isinstance(present_recipe, dict):
        for name in recipe:
            yield from _changes(recipe[name], present_recipe.get(name), f"{place}.{name}" if place else name)
    elif recipe != present_recipe:
        yield f"{place}={json.dumps(recipe, ensure_ascii=False)[:60]}"
