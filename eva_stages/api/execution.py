"""Running the stages of a recipe, and pushing the run after each iteration where the recipe asks for it."""

from collections.abc import Sequence

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.errors import ConfigError, EvaError, HubError, StageError
from eva_stages.core.ledger import planned_seconds
from eva_stages.core.overlapping import can_overlap, execute_overlapping
from eva_stages.core.progress import Reporter
from eva_stages.core.rounds import Iteration
from eva_stages.core.run_folder import Run
from eva_stages.core.runner import execute
from eva_stages.core.stage import Stage, closure
from eva_stages.publishing.contents import Selection
from eva_stages.publishing.pushing import push_run


def execute_and_publish(
    run: Run, recipe: Recipe, rounds: Sequence[Iteration], stages: Sequence[Stage], reporter: Reporter, repair: bool = False
) -> None:
    """Complete the stages; if the recipe asks for it, push the run after each complete iteration.

    A push that fails is reported and does not stop the run, because the next one includes everything.

    Raises:
        StageError: as `execute`; and at the end if the last push failed.
    """
    if recipe.publish is None:
        complete = execute_overlapping if can_overlap(stages, recipe.runtime.engine) else execute
        complete(run, stages, reporter, recipe.runtime.engine, repair)
        return
    failure: EvaError | None = None
    with reporter.run(closure(list(stages)), planned_seconds(run.root)):
        for iteration in rounds:
            fingerprints = {stage.fingerprint for stage in iteration.stages}
            execute(run, [stage for stage in stages if stage.fingerprint in fingerprints], reporter, recipe.runtime.engine, repair)
            if not all(run.is_complete(stage) for stage in iteration.stages):
                continue
            try:
                push_run(run, recipe.publish.to, recipe.publish.private, Selection(), False, reporter.say)
                failure = None
            except (HubError, ConfigError) as error:
                failure = error
                run.event("not-published", iteration=iteration.number, cause=str(error).splitlines()[0])
                reporter.say(f"iteration {iteration.number} is not published: {error}")
    if failure is not None:
        raise StageError(f"all stages are complete, but the last push failed: {failure}")
