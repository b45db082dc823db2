"""`eva creator` and `eva solver`: the stages of the creator or the solver in one iteration."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.next_steps import after_creator, after_solver
from cli.shared import (
    IterationOption,
    JsonOption,
    RecipeArgument,
    RepairOption,
    RunDirOption,
    SetOption,
    StoreOption,
    TrustOption,
    changes_of,
)

if TYPE_CHECKING:
    from eva_stages.core.config.recipe import Recipe


def creator(
    recipe: RecipeArgument,
    iteration: Annotated[int, typer.Option("--iteration", metavar="T", min=1, help="Which iteration, from 1.")],
    overrides: SetOption = None,
    run_dir: RunDirOption = None,
    store: StoreOption = None,
    repair: RepairOption = False,
    trust: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compute the prompts of an iteration: respond, reward, inform, select, evolve, curate, mix. Trains the creator if the recipe does."""
    from cli.running import run_stages
    from eva_stages.views.creator_prompts import creator_document, creator_view

    run_stages(
        recipe,
        changes_of(overrides, trust),
        run_dir,
        store,
        lambda rounds: list(rounds[iteration].creator),
        as_json,
        lambda _: after_creator(iteration),
        minimum_iterations=iteration,
        repair=repair,
        change=_check_trains,
        results=(lambda history: creator_document(history, iteration), creator_view),
    )


def solver(
    recipe: RecipeArgument,
    iteration: IterationOption,
    overrides: SetOption = None,
    run_dir: RunDirOption = None,
    store: StoreOption = None,
    accelerate: Annotated[Path | None, typer.Option(metavar="PATH", help="accelerate launch file, in place of the recipe's.")] = None,
    repair: RepairOption = False,
    trust: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train the policy of an iteration: respond, reward, pair, train."""
    from cli.running import run_stages

    changes = [*changes_of(overrides, trust), *([f"solver.training.runtime.launch={accelerate}"] if accelerate else [])]
    run_stages(
        recipe,
        changes,
        run_dir,
        store,
        lambda rounds: list(rounds[iteration].solver),
        as_json,
        lambda document: after_solver(document, iteration),
        minimum_iterations=iteration,
        repair=repair,
        change=_check_trains,
    )


def _check_trains(recipe: "Recipe") -> "Recipe":
    """The recipe, if it has a creator and a solver."""
    from eva_stages.core.errors import ConfigError

    if recipe.evaluation.only:
        raise ConfigError([f"evaluation.only: is true, so {recipe.name} has no creator and no solver; use eva eval run, or set it false"])
    return recipe
