"""Recording a run in its folder before its stages run: recipe, stages, code, licence and plan."""

from collections.abc import Sequence

from eva_stages.core.cluster import check_engine
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.durable import write_whole
from eva_stages.core.ledger import put_down
from eva_stages.core.recipe_files import dump_recipe
from eva_stages.core.resolved import Resolved
from eva_stages.core.rounds import Iteration, stages_of
from eva_stages.core.run_folder import Run
from eva_stages.core.variants import keep_variant
from eva_stages.planning.plan_document import plan_document
from eva_stages.publishing.story import record_licence


def record_run(run: Run, recipe: Recipe, resolved: Resolved, rounds: Sequence[Iteration]) -> None:
    """Write what readers of the run need. The caller has created the run's folder and holds its lock.

    Raises:
        ConfigError: if the recipe's engine cannot run the stages.
    """
    stages = stages_of(rounds)
    run.join_store()
    write_whole(run.root / "recipe.yaml", dump_recipe(recipe))
    for function in resolved.functions.values():
        function.save_sources(run.root)
    record_licence(run.root, recipe.policy.model, stages)
    run.plan(stages)
    keep_variant(run, stages, dump_recipe(recipe))
    check_engine(recipe.runtime.engine, run, stages)
    put_down(run, plan_document(recipe, resolved, list(rounds), run)["stages"])
