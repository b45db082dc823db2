"""`eva plan`: what would run, before anything is spent."""

from cli.shared import JsonOption, RecipeArgument, RunDirOption, SetOption, print_json, run_folder

WITH_JUDGING = 140
"""Columns that the table of judging costs needs; a narrower terminal wraps it."""


def plan(recipe: RecipeArgument, overrides: SetOption = None, run_dir: RunDirOption = None, as_json: JsonOption = False) -> None:
    """Every stage of a recipe: done or to do, with rows, tokens, GPU-hours and money."""
    from rich.console import Console

    from eva_stages.core.recipes import load_recipe
    from pipelines.checking import check
    from pipelines.planning import plan_document, plan_tables

    loaded = load_recipe(recipe, overrides or [])
    check(loaded, keys=False)
    document = plan_document(loaded, run_folder(loaded, run_dir))
    if as_json:
        print_json(document)
    else:
        console = Console()
        console.width = max(console.width, WITH_JUDGING if document["judging"] else console.width)
        console.print(plan_tables(document))
