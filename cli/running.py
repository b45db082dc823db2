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
    from cli.execution import execute_and_publish
    from cli.preparing import prepare
    from eva_stages.core.cluster import check_engine
    from eva_stages.core.durable import write_whole, writing_to
    from eva_stages.core.ledger import put_down
    from eva_stages.core.progress import Reporter
    from eva_stages.core.recipe_files import dump_recipe, load_recipe
    from eva_stages.core.sockets import use_short_temporary_folder
    from eva_stages.core.stage import closure
    from eva_stages.core.terminal import note
    from eva_stages.core.variants import keep_variant, other_variants
    from eva_stages.planning.plan_document import plan_document
    from eva_stages.publishing.story import record_licence
    from eva_stages.views.history import read_history
    from eva_stages.views.run_summary import summary
    from eva_stages.views.summary_tables import summary_tables

    use_short_temporary_folder()
    recipe = load_recipe(recipe_name, overrides)
    if change is not None:
        recipe = change(recipe)
    if recipe.iterations < minimum_iterations:
        recipe = recipe.model_copy(update={"iterations": minimum_iterations})
    run = run_folder(recipe, run_dir, store)
    resolved, rounds, _ = prepare(recipe, run)
    recipe = recipe.model_copy(update={"runtime": recipe.runtime.model_copy(update={"date": resolved.date})})
    stages, all_stages = choose(rounds), closure([stage for iteration in rounds for stage in iteration.stages])
    with writing_to(run.root):
        run.create()
        with run.lock():
            run.join_store()
            write_whole(run.root / "recipe.yaml", dump_recipe(recipe))
            for function in resolved.functions.values():
                function.save_sources(run.root)
            record_licence(run.root, recipe.policy.model, all_stages)
            run.plan(all_stages)
            keep_variant(run, all_stages, dump_recipe(recipe))
            check_engine(recipe.runtime.engine, run, all_stages)
            if not all(run.is_complete(stage) for stage in stages):
                for variant in other_variants(run):  # report unused artifacts before anything is computed or paid
                    note(variant.description(run.root))
            put_down(run, plan_document(recipe, resolved, rounds, run)["stages"])
            execute_and_publish(run, recipe, rounds, stages, Reporter(), repair)
    document = summary(read_history(run, skip_damaged=True))
    for variant in other_variants(run):
        note(variant.description(run.root))
    show(document, summary_tables, as_json, WITH_BENCHMARKS if document["benchmarks"] else NARROWEST)
