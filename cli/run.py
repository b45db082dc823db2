"""`eva run`: creator, solver and evaluation, iteration by iteration."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.shared import JsonOption, RepairOption, RunDirOption, SetOption, StoreOption, TrustOption, changes_of

if TYPE_CHECKING:
    from eva_stages.core.rounds import Iteration
    from eva_stages.core.stage import Stage


def run(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Path of a recipe, or name of a packaged one.")] = "quickstart",
    overrides: SetOption = None,
    run_dir: RunDirOption = None,
    store: StoreOption = None,
    last_stage: Annotated[
        str | None, typer.Option("--until", metavar="STAGE", help="Stop after this stage, as `1-evolve` or `evolve`.")
    ] = None,
    iterations: Annotated[int | None, typer.Option(metavar="N", min=0, help="eva iterations after the base round.")] = None,
    repair: RepairOption = False,
    trust: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a recipe: creator, solver and evaluation, resumable. Without a recipe: quickstart."""
    from cli.running import run_stages

    changes = [*changes_of(overrides, trust), *([f"iterations={iterations}"] if iterations is not None else [])]
    run_stages(recipe, changes, run_dir, store, lambda rounds: _stages_until(rounds, last_stage), as_json, repair=repair)


def _stages_until(rounds: "list[Iteration]", last: str | None) -> "list[Stage]":
    """All stages in order, up to the named one."""
    from eva_stages.core.errors import ConfigError

    stages = [stage for iteration in rounds for stage in iteration.stages]
    if last is None:
        return stages
    for index, stage in enumerate(stages):
        if last in (stage.name, stage.label):
            return stages[: index + 1]
    names = ", ".join(dict.fromkeys(stage.name for stage in stages))
    raise ConfigError([f"--until: there is no stage {last!r}; stages: {names}; put the iteration before the name, as in 2-mix"])
