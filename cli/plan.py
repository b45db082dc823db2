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
    from eva_stages.core.study_files import LoadedStudy

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
    from eva_stages.api.planning_documents import recipe_plan
    from eva_stages.core.recipe_files import load_recipe
    from eva_stages.core.study_files import find_study, load_study
    from eva_stages.planning.plan_tables import plan_tables

    if find_study(recipe) is not None:
        loaded_study = load_study(recipe, {}, changes_of(overrides, trust))
        plan_study(loaded_study, run_dir or Path("runs") / loaded_study.name, store, rates, measure, online, as_json)
        return
    loaded_recipe = load_recipe(recipe, changes_of(overrides, trust))
    document = recipe_plan(loaded_recipe, run_folder(loaded_recipe, run_dir, store), rates, measure, online)
    show(document, plan_tables, as_json)
    show_next(after_plan(document), as_json)


def plan_study(
    loaded_study: "LoadedStudy", folder: Path, store: Path | None, rates: Path | None, measure: bool, online: bool, as_json: bool
) -> None:
    """Print the plan of a study."""
    from eva_stages.api.planning_documents import study_plan_of
    from eva_stages.planning.study_plan import study_plan_table

    show(study_plan_of(loaded_study, folder, store, rates, measure, online), study_plan_table, as_json)
    show_next(after_study_plan(), as_json)
