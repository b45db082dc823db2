"""eva from Python: what the commands do, as functions. `from eva_stages import api as eva`

    recipe = eva.load_recipe("quickstart", {"iterations": 1})
    run = eva.run(recipe, progress=True)
    run.rows("1-evolve")           # a datasets.Dataset
    run.scores()                   # a data frame

The commands in `cli/` parse, call this room and print; so both do the same, and read the same folders. Nothing here prints or exits: errors
are the exceptions of `core/errors.py`, notices are Python warnings or go to `progress`. Heavy libraries are imported when they are needed.
"""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.errors import ConfigError, DamagedError, EvaError, HubError, LockedError, StageError
from eva_stages.core.study_files import LoadedStudy
from eva_stages.core.terminal import notes_as_warnings

if TYPE_CHECKING:
    from eva_stages.api.opened_runs import OpenedRun
    from eva_stages.api.opened_studies import OpenedStudy
    from eva_stages.api.reporters import Progress

__all__ = [
    "ConfigError",
    "DamagedError",
    "EvaError",
    "HubError",
    "LoadedStudy",
    "LockedError",
    "Recipe",
    "StageError",
    "load_recipe",
    "load_study",
    "open_run",
    "open_study",
    "plan",
    "run",
    "run_study",
    "validate",
]

Changes = Mapping[str, Any]
"""Fields by their dotted names, as in {"creator.metric": "uniform"}; the same as `--set`."""
RecipeLike = Recipe | str | Path | Mapping[str, Any]
"""A recipe; the path of a recipe file or the name of a packaged one; or the fields of a recipe."""


@notes_as_warnings()
def load_recipe(recipe: RecipeLike, changes: Changes | None = None, trust: bool = False) -> Recipe:
    """Read and validate a recipe. Relative paths in a file are relative to the file, others to the current folder.

    Args:
        recipe: a path, the name of a packaged recipe, or a mapping of its fields.
        trust: allow code in files that the recipe names; as `trust_code: true` in the recipe.

    Raises:
        ConfigError: with every error, each with its field and the fix.
    """
    from eva_stages.api.loading_recipes import recipe_of

    return recipe_of(recipe, changes or {}, trust)


@notes_as_warnings()
def load_study(study: str | Path, changes: Changes | None = None, trust: bool = False, **fields: Any) -> LoadedStudy:
    """Read and validate a study, and the recipe of each of its arms.

    Args:
        study: path, or name of a packaged study.
        changes: of the recipes of all arms.
        fields: replace fields of the study, as in seeds=3 or base="quickstart".

    Raises:
        ConfigError: with every error.
    """
    from eva_stages.api.loading_recipes import study_of

    return study_of(study, changes or {}, trust, fields)


@notes_as_warnings()
def validate(recipe: RecipeLike | LoadedStudy, online: bool = False) -> list[str]:
    """Check a recipe, or all arms of a study, and everything named there, as `eva validate`; returns notes.

    Args:
        online: ask every server of the recipe one question, under its key.

    Raises:
        ConfigError: with every error.
    """
    from eva_stages.api.preparing import validation_notes

    return validation_notes(recipe if isinstance(recipe, LoadedStudy) else load_recipe(recipe), online)


@notes_as_warnings()
def plan(recipe: RecipeLike | LoadedStudy, folder: str | Path | None = None, store: str | Path | None = None) -> dict[str, Any]:
    """What would run, before anything is spent: the document of `eva plan --json`.

    Args:
        folder: of the run or the study; None: runs/NAME.
        store: folder where runs share artifacts; None: `.store` beside the run.

    Raises:
        ConfigError: with every error of the recipe, except missing keys and accounts.
    """
    from eva_stages.api.planning_documents import recipe_plan, study_plan_of
    from eva_stages.api.run_places import RUNS, run_of

    if isinstance(recipe, LoadedStudy):
        return study_plan_of(recipe, _path(folder) or RUNS / recipe.name, _path(store))
    loaded_recipe = load_recipe(recipe)
    return recipe_plan(loaded_recipe, run_of(loaded_recipe, _path(folder), _path(store)))


def run(
    recipe: RecipeLike,
    folder: str | Path | None = None,
    *,
    store: str | Path | None = None,
    until: str | None = None,
    iterations: int | None = None,
    repair: bool = False,
    progress: "bool | Callable[[Progress], None]" = False,
) -> "OpenedRun":
    """Run a recipe as `eva run`: resumable, what is complete is reused.

    Args:
        folder: of the run; None: runs/NAME.
        store: folder where runs share artifacts; None: the one that the run used last, or `.store` beside the run.
        until: stop after this stage, as `1-evolve` or `evolve`.
        iterations: eva iterations after the base round; None: the recipe's.
        repair: rebuild complete artifacts that have changed since they were built.
        progress: True: as the command shows it, on stderr; a function: it is called with each `Progress`, from any thread.

    Raises:
        ConfigError: with every error of the recipe, before anything runs.
        StageError: naming the stage and the cause; completed work is saved, and the same call resumes.
        DamagedError: an artifact has changed since it was built; `repair=True` rebuilds it.
    """
    from eva_stages.api.opened_runs import OpenedRun
    from eva_stages.api.reporters import reporter_of
    from eva_stages.api.run_completion import complete_run, stages_until
    from eva_stages.api.run_places import run_of

    loaded_recipe = load_recipe(recipe, {} if iterations is None else {"iterations": iterations})
    with reporter_of(progress) as reporter:
        place = run_of(loaded_recipe, _path(folder), _path(store))
        complete_run(loaded_recipe, place, lambda rounds: stages_until(rounds, until), reporter, repair)
    return OpenedRun(place.root)


def run_study(
    study: LoadedStudy | str | Path,
    folder: str | Path | None = None,
    *,
    store: str | Path | None = None,
    jobs: int | None = None,
    repair: bool = False,
    progress: "bool | Callable[[Progress], None]" = False,
) -> "OpenedStudy":
    """Run a study as `eva ablate`: every arm with every seed. Call it in the main thread.

    Args:
        jobs: runs at a time; None: as many as the GPUs or cores allow.
        folder, store, repair, progress: as for `run`.

    Raises:
        ConfigError: with every error of any arm, before anything runs.
        StageError: runs failed; the others are complete, and the same call tries the failed ones again.
    """
    from eva_stages.api.opened_studies import OpenedStudy
    from eva_stages.api.reporters import study_reporter_of
    from eva_stages.api.study_completion import complete_study, failure_text

    if threading.current_thread() is not threading.main_thread():
        raise ConfigError(["run_study: was called in another thread; call it in the main thread, which receives Ctrl-C for all runs"])
    loaded_study = study if isinstance(study, LoadedStudy) else load_study(study)
    place = _path(folder) or Path("runs") / loaded_study.name
    with study_reporter_of(progress) as reporter_for:
        _, failures = complete_study(loaded_study, place, _path(store), jobs, repair, reporter_for)
    if failures:
        raise StageError(failure_text(failures, len(loaded_study.recipes) * len(loaded_study.seeds)))
    return OpenedStudy(place)


@notes_as_warnings()
def open_run(run: str | Path) -> "OpenedRun":
    """Open a run, finished or not, by its folder or its name below runs/. Its recipe's models and files are not needed.

    Raises:
        ConfigError: if there is no such run, with the names of those that exist.
    """
    from eva_stages.api.opened_runs import OpenedRun
    from eva_stages.api.run_places import existing_run

    return OpenedRun(existing_run(str(run)).root)


@notes_as_warnings()
def open_study(study: str | Path) -> "OpenedStudy":
    """Open a study, finished or not, by its folder or its name below runs/.

    Raises:
        ConfigError: if there is no such study.
    """
    from eva_stages.api.opened_studies import OpenedStudy
    from eva_stages.api.run_places import existing_study

    folder = existing_study(str(study))
    if folder is None:
        raise ConfigError([f"{study} is not a study (it has no study.json); open_run opens a run"])
    return OpenedStudy(folder)


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)
