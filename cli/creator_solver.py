"""`eva creator` and `eva solver`: the stages of the creator or the solver in one iteration."""

from pathlib import Path
from typing import Annotated

import typer

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
    """Make the prompts of an iteration: answer, score, inform, select, evolve, curate, mix."""
    from cli.running import run_stages

    run_stages(
        recipe, changes_of(overrides, trust), run_dir, store, lambda rounds: list(rounds[iteration].creator), as_json, iteration, repair
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
    """Train the policy of an iteration: answer, score, pair, train."""
    from cli.running import run_stages

    changes = [*changes_of(overrides, trust), *([f"solver.training.runtime.launch={accelerate}"] if accelerate else [])]
    run_stages(recipe, changes, run_dir, store, lambda rounds: list(rounds[iteration].solver), as_json, iteration, repair)
