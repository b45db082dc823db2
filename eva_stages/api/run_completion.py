"""Running a recipe: record it in the run's folder, complete the stages, push where the recipe asks for it."""

from collections.abc import Callable, Iterator, Sequence

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.errors import ConfigError
from eva_stages.core.progress import Reporter
from eva_stages.core.rounds import Iteration
from eva_stages.core.run_folder import Run
from eva_stages.core.stage import Stage

TRAININGS = ("train", "creator-train")
"""Stages that start a launch file."""


def complete_run(
    recipe: Recipe, run: Run, choose: Callable[[list[Iteration]], Sequence[Stage]], reporter: Reporter, repair: bool = False
) -> None:
    """Complete the selected stages of a recipe with everything they need.

    Args:
        choose: selects stages from the run's iterations.
        repair: recompute complete artifacts whose content changed since they were committed.

    Raises:
        ConfigError: with every error of the recipe, before anything runs.
        StageError, DamagedError: as `execute`.
    """
    from eva_stages.core.process import start_fork_server
    from eva_stages.core.sockets import use_short_temporary_folder

    use_short_temporary_folder()
    start_fork_server()  # imports take seconds, there and here
    from eva_stages.api.execution import execute_and_publish
    from eva_stages.api.preparing import prepare
    from eva_stages.api.recording import record_run
    from eva_stages.core.durable import writing_to
    from eva_stages.core.variants import other_variants

    resolved, rounds, _ = prepare(recipe, run)
    recipe = recipe.model_copy(update={"runtime": recipe.runtime.model_copy(update={"date": resolved.date})})
    stages = choose(rounds)
    if errors := list(missing_devices(recipe, run, stages)):
        raise ConfigError(errors)
    with writing_to(run.root):
        run.create()
        with run.lock():
            record_run(run, recipe, resolved, rounds)
            if not all(run.is_complete(stage) for stage in stages):
                for variant in other_variants(run):  # report unused artifacts before anything is computed or paid
                    reporter.say(variant.description(run.root))
            execute_and_publish(run, recipe, rounds, stages, reporter, repair)


def missing_devices(recipe: Recipe, run: Run, stages: Sequence[Stage]) -> Iterator[str]:
    """What the trainings that are to do need and this machine lacks."""
    from eva_stages.checking.solver_checks import check_devices

    if any(stage.name in TRAININGS and not run.is_complete(stage) for stage in stages):
        yield from check_devices(recipe)


def stages_until(rounds: list[Iteration], last: str | None, name: str = "until") -> list[Stage]:
    """All stages in order, up to the named one.

    Args:
        last: as `1-evolve`, or `evolve` for the first of that name; None: all.
        name: of the argument, for errors.

    Raises:
        ConfigError: if there is no such stage.
    """
    stages = [stage for iteration in rounds for stage in iteration.stages]
    if last is None:
        return stages
    for index, stage in enumerate(stages):
        if last in (stage.name, stage.label):
            return stages[: index + 1]
    names = ", ".join(dict.fromkeys(stage.name for stage in stages))
    raise ConfigError([f"{name}: there is no stage {last!r}; stages: {names}; put the iteration before the name, as in 2-mix"])
