"""`eva run`: creator, solver and evaluation, iteration by iteration."""

from typing import Annotated

import typer

from cli.completion import complete_recipe, complete_stage
from cli.next_steps import after_run
from cli.shared import JsonOption, RepairOption, RunDirOption, SetOption, StoreOption, TrustOption, changes_of


def run(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="Path of a recipe, or name of a packaged one.", autocompletion=complete_recipe)
    ] = "quickstart",
    overrides: SetOption = None,
    run_dir: RunDirOption = None,
    store: StoreOption = None,
    last_stage: Annotated[
        str | None,
        typer.Option("--until", metavar="STAGE", help="Stop after this stage, as `1-evolve` or `evolve`.", autocompletion=complete_stage),
    ] = None,
    iterations: Annotated[int | None, typer.Option(metavar="N", min=0, help="eva iterations after the base round.")] = None,
    repair: RepairOption = False,
    trust: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a recipe: creator, solver and evaluation, resumable. Without a recipe: quickstart."""
    from cli.running import run_stages
    from eva_stages.api.run_completion import stages_until

    changes = [*changes_of(overrides, trust), *([f"iterations={iterations}"] if iterations is not None else [])]
    run_stages(
        recipe, changes, run_dir, store, lambda rounds: stages_until(rounds, last_stage, "--until"), as_json, after_run, repair=repair
    )
