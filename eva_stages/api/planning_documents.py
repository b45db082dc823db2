"""The plan of a recipe or a study as a document. Notes are given to `core.terminal.note`."""

from pathlib import Path
from typing import Any

from eva_stages.api.preparing import prepare
from eva_stages.api.run_places import check_study_folder
from eva_stages.checking.provider_checks import ask_servers
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.kinds import parsed_label
from eva_stages.core.resolved import Resolved
from eva_stages.core.run_folder import Run
from eva_stages.core.study_files import LoadedStudy
from eva_stages.core.terminal import note
from eva_stages.planning.rates import Rates, read_rates


def recipe_plan(recipe: Recipe, run: Run, rates: Path | None = None, measure: bool = False, online: bool = False) -> dict[str, Any]:
    """What would run, before anything is spent.

    Args:
        rates: file of a table of rates to go by; None: the measured or the usual ones.
        measure: time a few batches of every stage first.
        online: ask every server of the recipe one question, under its key.

    Raises:
        ConfigError: with every error, except missing keys and accounts.
    """
    from eva_stages.planning.plan_document import plan_document

    given_rates = read_rates(rates) if rates is not None else None
    resolved, rounds, notes = prepare(recipe, run, keys=False, online=online)
    for text in [*notes, *(ask_servers(recipe) if online else [])]:
        note(f"note: {text}")
    if measure:
        _measure(recipe, resolved, run)
    document = plan_document(recipe, resolved, rounds, run, given_rates)
    if given_rates is not None:
        labels = [entry["stage"] for entry in document["stages"]]
        known_names = {*labels, *(parsed_label(label)[1] for label in labels)}
        if unused_names := [name for name in given_rates.stages if name not in known_names]:
            note(f"{rates}: {recipe.name} has no stage {', '.join(unused_names)}")
    return document


def study_plan_of(
    study: LoadedStudy, folder: Path, store: Path | None, rates: Path | None = None, measure: bool = False, online: bool = False
) -> dict[str, Any]:
    """What a study would run.

    Args:
        folder: of the study.
        store: folder where runs share artifacts; None: see `study_store`.
        rates, measure, online: as for `recipe_plan`; the stages of the first arm are timed.

    Raises:
        ConfigError: with every error of any arm, except missing keys and accounts.
    """
    from eva_stages.api.study_preparing import planned_study, prepare_study, study_store

    check_study_folder(folder)
    given_rates = read_rates(rates) if rates is not None else Rates()
    prepared_study = prepare_study(study, folder, keys=False, online=online)
    shared_store = store or study_store(folder, prepared_study.record.arms)
    for text in prepared_study.notes:
        note(f"note: {text}")
    if measure:
        first_run = prepared_study.runs[0]
        _measure(first_run.recipe, first_run.resolved, Run(folder / first_run.label, shared_store))
    return planned_study(prepared_study, folder, shared_store, given_rates)


def _measure(recipe: Recipe, resolved: Resolved, run: Run) -> None:
    """Time the stages, and save the rates in the run's folder."""
    from eva_stages.core.progress import Reporter
    from eva_stages.planning.measured_rates import measured_rates, reduced_recipe
    from eva_stages.planning.rates import write_rates
    from pipelines.iteration import iterations

    small = reduced_recipe(recipe)
    write_rates(run, measured_rates(small, resolved, iterations(small, resolved), run.root, Reporter()))
