"""`eva recipes` and `eva validate`: the packaged recipes, and whether a recipe is right."""

from pathlib import Path
from typing import Annotated

import typer

from cli.shared import JsonOption, OnlineOption, RecipeArgument, SetOption, TrustOption, changes_of

app = typer.Typer(no_args_is_help=True, help="List, show and copy the packaged recipes.")


@app.command("ls")
def ls(as_json: JsonOption = False) -> None:
    """List the packaged recipes."""
    from eva_stages.core.recipe_files import packaged_recipes

    recipes = [{"name": recipe.name, "summary": recipe.summary} for recipe in packaged_recipes()]
    if as_json:
        from eva_stages.core.terminal import print_json

        print_json({"recipes": recipes})
        return
    for recipe in recipes:
        print(f"{recipe['name']}: {recipe['summary']}")


@app.command("show")
def show(name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Print a recipe."""
    from eva_stages.core.recipe_files import recipe_text
    from eva_stages.core.terminal import print_text

    print_text(recipe_text(name)[1])


@app.command("copy")
def copy(name: Annotated[str, typer.Argument(metavar="NAME")], path: Annotated[Path, typer.Argument(metavar="PATH")]) -> None:
    """Copy a recipe to a file of your own, with the folder of the files it names."""
    import shutil

    from eva_stages.core.errors import ConfigError
    from eva_stages.core.recipe_files import recipe_files, recipe_text
    from eva_stages.core.terminal import print_text

    text, files = recipe_text(name)[1], recipe_files(name)
    copies = [path, *([path.parent / files.name] if files else [])]
    if existing := [str(copy) for copy in copies if copy.exists()]:
        raise ConfigError([f"{' and '.join(existing)} exists and is not overwritten; give another path"])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if files:
            shutil.copytree(files, path.parent / files.name, ignore=shutil.ignore_patterns("__pycache__"))
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError([f"{path} cannot be written: {error}; give another path"]) from error
    print_text(f"{path}: edit it, then eva validate {path}\n")


def validate(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    trust: TrustOption = False,
    online: OnlineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check a recipe and everything it names; report all errors."""
    from cli.preparing import prepare
    from eva_stages.checking.provider_checks import ask_servers
    from eva_stages.core.errors import ConfigError
    from eva_stages.core.recipe_files import load_recipe
    from eva_stages.core.redaction import redact_data
    from eva_stages.core.terminal import note, print_json, print_text

    try:
        recipe_object = load_recipe(recipe, changes_of(overrides, trust))
        notes = [*prepare(recipe_object, online=online).notes, *(ask_servers(recipe_object) if online else [])]
    except ConfigError as error:
        if as_json:
            print_json({"valid": False, "faults": redact_data(error.faults)})
            raise typer.Exit(2) from error
        raise
    if as_json:
        print_json({"valid": True, "faults": [], "notes": notes})
    else:
        for text in notes:
            note(f"note: {text}")
        print_text(f"{recipe} is valid\n")
