"""`eva eval`: held-out evaluation."""

import typer

from cli.scoring import ManyFiles, compare, score, table
from cli.shared import JsonOption, RecipeArgument, RunDirOption, SetOption

app = typer.Typer(no_args_is_help=True, help="Evaluate policies on held-out benchmarks.")
app.command("score", cls=ManyFiles)(score)
app.command("compare")(compare)
app.command("table")(table)


@app.command("run")
def run(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    run_dir: RunDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate the base policy and the policy of every iteration on the recipe's benchmarks."""
    from cli.running import run_stages

    run_stages(recipe, overrides or [], run_dir, lambda rounds: [stage for one in rounds for stage in one.evaluation], as_json)
