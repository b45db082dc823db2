"""Completing stages of a recipe, for `run`, `creator`, `solver` and `eval run`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cli.shared import run_folder, show

NARROWEST, WITH_BENCHMARKS = 112, 140
"""Columns that the tables of intervals need; a narrower terminal wraps them."""

if TYPE_CHECKING:
    from eva_stages.core.config.recipe import Recipe
    from eva_stages.core.rounds import Iteration
    from eva_stages.core.run_folder import Run
    from eva_stages.core.stage import Stage


def run_stages(
    recipe_name: str,
    overrides: Sequence[str],
    run_dir: Path | None,
    store: Path | None,
    choose: "Callable[[list[Iteration]], list[Stage]]",
    as_json: bool,
    minimum_iterations: int = 0,
    repair: bool = False,
    change: "Callable[[Recipe], Recipe] | None" = None,
) -> None:
    """Load the recipe, run the selected stages with everything they need, and print the table.

    Args:
        choose: selects stages from the run's iterations.
        minimum_iterations: the recipe is extended to this number of iterations.
        repair: recompute complete artifacts whose content changed since they were committed.
        change: changes or refuses the recipe, after the overrides.
    """
    from eva_stages.core.process import start_fork_server
    from eva_stages.core.recipe_files import load_recipe
    from eva_stages.core.sockets import use_short_temporary_folder

    use_short_temporary_folder()
    recipe = load_recipe(recipe_name, overrides)
    if change is not None:
        recipe = change(recipe)
    if recipe.iterations < minimum_iterations:
        recipe = recipe.model_copy(update={"iterations": minimum_iterations})
    run = run_folder(recipe, run_dir, store)
    start_fork_server()  # imports take seconds, there and here
    _complete_and_show(recipe, run, choose, as_json, repair)


def _complete_and_show(
    recipe: "Recipe", run: "Run", choose: "Callable[[list[Iteration]], list[Stage]]", as_json: bool, repair: bool
) -> None:
    from cli.execution import execute_and_publish
    from cli.preparing import prepare
    from cli.recording import record_run
    from eva_stages.core.durable import writing_to
    from eva_stages.core.progress import Reporter
    from eva_stages.core.terminal import note
    from eva_stages.core.variants import other_variants
    from eva_stages.views.history import read_history
    from eva_stages.views.run_summary import summary
    from eva_stages.views.summary_tables import summary_tables

    resolved, rounds, _ = prepare(recipe, run)
    recipe = recipe.model_copy(update={"runtime": recipe.runtime.model_copy(update={"date": resolved.date})})
    stages = choose(rounds)
    with writing_to(run.root):
        run.create()
        with run.lock():
            record_run(run, recipe, resolved, rounds)
            if not all(run.is_complete(stage) for stage in stages):
                for variant in other_variants(run):  # report unused artifacts before anything is computed or paid
                    note(variant.description(run.root))
            execute_and_publish(run, recipe, rounds, stages, Reporter(), repair)
    document = summary(read_history(run, skip_damaged=True))
    for variant in other_variants(run):
        note(variant.description(run.root))
    show(document, summary_tables, as_json, WITH_BENCHMARKS if document["benchmarks"] else NARROWEST)
