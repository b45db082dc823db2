"""Completing stages of a recipe, for `run`, `creator`, `solver` and `eval run`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.output_options import show_next
from cli.shared import run_folder, show

if TYPE_CHECKING:
    from rich.console import RenderableType

    from eva_stages.core.config.recipe import Recipe
    from eva_stages.core.rounds import Iteration
    from eva_stages.core.run_folder import Run
    from eva_stages.core.stage import Stage
    from eva_stages.views.history import History


def run_stages(
    recipe_name: str,
    overrides: Sequence[str],
    run_dir: Path | None,
    store: Path | None,
    choose: "Callable[[list[Iteration]], list[Stage]]",
    as_json: bool,
    next_step: "Callable[[dict[str, Any]], str]",
    minimum_iterations: int = 0,
    repair: bool = False,
    change: "Callable[[Recipe], Recipe] | None" = None,
    results: "tuple[Callable[[History], dict[str, Any]], Callable[[dict[str, Any]], RenderableType]] | None" = None,
) -> None:
    """Load the recipe, run the selected stages with everything they need, and print the table.

    Args:
        choose: selects stages from the run's iterations.
        minimum_iterations: the recipe is extended to this number of iterations.
        repair: recompute complete artifacts whose content changed since they were committed.
        next_step: what to do next, from the run's summary.
        change: changes or refuses the recipe, after the overrides.
        results: reads what is printed from the run, and shows it; in place of the run's summary.
    """
    from eva_stages.api.run_completion import complete_run
    from eva_stages.core.progress import Reporter
    from eva_stages.core.recipe_files import load_recipe

    recipe = load_recipe(recipe_name, overrides)
    if change is not None:
        recipe = change(recipe)
    if recipe.iterations < minimum_iterations:
        recipe = recipe.model_copy(update={"iterations": minimum_iterations})
    run = run_folder(recipe, run_dir, store)
    reporter = Reporter()
    reporter.log("checking the recipe and what it names")  # importing the libraries takes seconds, and minutes on a busy machine
    complete_run(recipe, run, choose, reporter, repair)
    _show(run, as_json, next_step, results)


def _show(
    run: "Run",
    as_json: bool,
    next_step: "Callable[[dict[str, Any]], str]",
    results: "tuple[Callable[[History], dict[str, Any]], Callable[[dict[str, Any]], RenderableType]] | None",
) -> None:
    from eva_stages.core.terminal import note
    from eva_stages.core.variants import other_variants
    from eva_stages.views.history import read_history
    from eva_stages.views.run_summary import summary
    from eva_stages.views.summary_tables import summary_tables

    read_document, view = results or (summary, summary_tables)
    document = read_document(read_history(run, skip_damaged=True))
    for variant in other_variants(run):
        note(variant.description(run.root))
    show(document, view, as_json)
    show_next(next_step(document), as_json)
