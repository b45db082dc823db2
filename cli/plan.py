"""`eva plan`: what would run, before anything is spent."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.next_steps import after_plan, after_study_plan
from cli.output_options import show_next
from cli.shared import (
    JsonOption,
    OnlineOption,
    RecipeArgument,
    RunDirOption,
    SetOption,
    StoreOption,
    TrustOption,
    changes_of,
    run_folder,
    show,
)

if TYPE_CHECKING:
    from eva_stages.core.config.recipe import Recipe
    from eva_stages.core.resolved import Resolved
    from eva_stages.core.run_folder import Run
    from eva_stages.core.study_files import LoadedStudy
    from eva_stages.planning.rates import Rates

MEASURE = "Run a few batches of every stage on this machine first, and go by that; nothing that calls a provider is run."
RATES = "Go by a table of rates (YAML or JSON), as in stages: {respond: {fixed_seconds: 90, seconds_per_unit: 0.4, gpus: 8}}"


def plan(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    run_dir: RunDirOption = None,
    store: StoreOption = None,
    measure: Annotated[bool, typer.Option("--measure", help=MEASURE)] = False,
    rates: Annotated[Path | None, typer.Option("--rates", metavar="FILE", help=RATES)] = None,
    trust: TrustOption = False,
    online: OnlineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Every stage of a recipe: done or to do, with rows, tokens, time, GPU-hours, disk and money. Of a study: every arm.

    A study with other options than these is planned by eva ablate --plan.
    """
    from eva_stages.api.preparing import prepare
    from eva_stages.checking.provider_checks import ask_servers
    from eva_stages.core.kinds import parsed_label
    from eva_stages.core.recipe_files import load_recipe
    from eva_stages.core.study_files import find_study, load_study
    from eva_stages.core.terminal import note
    from eva_stages.planning.plan_document import plan_document
    from eva_stages.planning.plan_tables import plan_tables
    from eva_stages.planning.rates import read_rates

    given_rates = read_rates(rates) if rates is not None else None
    if find_study(recipe) is not None:
        loaded_study = load_study(recipe, {}, changes_of(overrides, trust))
        plan_study(loaded_study, run_dir or Path("runs") / loaded_study.name, store, given_rates, measure, online, as_json)
        return
    loaded_recipe = load_recipe(recipe, changes_of(overrides, trust))
    run = run_folder(loaded_recipe, run_dir, store)
    resolved, rounds, notes = prepare(loaded_recipe, run, keys=False, online=online)
    for text in [*notes, *(ask_servers(loaded_recipe) if online else [])]:
        note(f"note: {text}")
    if measure:
        _measure(loaded_recipe, resolved, run)
    document = plan_document(loaded_recipe, resolved, rounds, run, given_rates)
    if given_rates is not None:
        labels = [entry["stage"] for entry in document["stages"]]
        known_names = {*labels, *(parsed_label(label)[1] for label in labels)}
        if unused_names := [name for name in given_rates.stages if name not in known_names]:
            note(f"{rates}: {loaded_recipe.name} has no stage {', '.join(unused_names)}")
    show(document, plan_tables, as_json)
    show_next(after_plan(document), as_json)


def plan_study(
    loaded_study: "LoadedStudy",
    folder: Path,
    store: Path | None,
    given_rates: "Rates | None",
    measure: bool,
    online: bool,
    as_json: bool,
) -> None:
    """Print the plan of a study.

    Args:
        measure: time the stages of the first arm first.
    """
    from eva_stages.api.study_preparing import planned_study, prepare_study, study_store
    from eva_stages.core.run_folder import Run
    from eva_stages.core.terminal import note
    from eva_stages.planning.rates import Rates
    from eva_stages.planning.study_plan import study_plan_table

    prepared_study = prepare_study(loaded_study, folder, keys=False, online=online)
    store = store or study_store(folder, prepared_study.record.arms)
    for text in prepared_study.notes:
        note(f"note: {text}")
    if measure:
        first_run = prepared_study.runs[0]
        _measure(first_run.recipe, first_run.resolved, Run(folder / first_run.label, store))
    document = planned_study(prepared_study, folder, store, given_rates or Rates())
    show(document, study_plan_table, as_json)
    show_next(after_study_plan(), as_json)


def _measure(recipe: "Recipe", resolved: "Resolved", run: "Run") -> None:
    """Time the stages, and save the rates in the run's folder."""
    from eva_stages.core.progress import Reporter
    from eva_stages.planning.measured_rates import measured_rates, reduced_recipe
    from eva_stages.planning.rates import write_rates
    from pipelines.iteration import iterations

    small = reduced_recipe(recipe)
    write_rates(run, measured_rates(small, resolved, iterations(small, resolved), run.root, Reporter()))
