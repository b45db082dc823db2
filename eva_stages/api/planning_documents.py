"""The plan of a recipe or a study as a document."""

from pathlib import Path
from typing import Any

from eva_stages.api.preparing import prepare
from eva_stages.api.run_places import RUNS, check_study_folder, run_of
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.study_files import LoadedStudy
from eva_stages.core.terminal import note


def plan_of(recipe: Recipe | LoadedStudy, folder: Path | None, store: Path | None) -> dict[str, Any]:
    """What would run, before anything is spent. Notes are given to `note`.

    Raises:
        ConfigError: with every error, except missing keys and accounts.
    """
    from eva_stages.api.study_preparing import planned_study, prepare_study, study_store
    from eva_stages.planning.plan_document import plan_document
    from eva_stages.planning.rates import Rates

    if isinstance(recipe, LoadedStudy):
        place = folder or RUNS / recipe.name
        check_study_folder(place)
        prepared_study = prepare_study(recipe, place, keys=False)
        notes = prepared_study.notes
        document = planned_study(prepared_study, place, store or study_store(place, prepared_study.record.arms), Rates())
    else:
        run = run_of(recipe, folder, store)
        resolved, rounds, notes = prepare(recipe, run, keys=False)
        document = plan_document(recipe, resolved, rounds, run)
    for text in notes:
        note(text)
    return document
