"""`eva recipes` and `eva validate`: the packaged recipes and studies, and whether a recipe is right."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.completion import complete_packaged, complete_recipe
from cli.shared import JsonOption, OnlineOption, RecipeArgument, SetOption, TrustOption, changes_of

app = typer.Typer(no_args_is_help=True, help="List, show and copy the packaged recipes and studies.")


NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of a packaged recipe or study.", autocompletion=complete_packaged)]
FirstArgument = Annotated[
    str, typer.Argument(metavar="A", help="Path of a recipe, or name of a packaged one.", autocompletion=complete_recipe)
]
SecondArgument = Annotated[str, typer.Argument(metavar="B", help="The other recipe.", autocompletion=complete_recipe)]


@app.command("ls")
def ls(as_json: JsonOption = False) -> None:
    """List the packaged recipes, and the packaged studies (eva ablate)."""
    from eva_stages.core.packaged_files import packaged_recipes, packaged_studies
    from eva_stages.core.terminal import print_json

    files = {"recipes": packaged_recipes(), "studies": packaged_studies()}
    listing = {kind: [{"name": file.name, "summary": file.summary} for file in entries] for kind, entries in files.items()}
    if as_json:
        print_json(listing)
        return
    for recipe in listing["recipes"]:
        print(f"{recipe['name']}: {recipe['summary']}")
    print("\nstudies, for eva ablate:")
    for study in listing["studies"]:
        print(f"{study['name']}: {study['summary']}")


@app.command("show")
def show(name: NameArgument) -> None:
    """Print a recipe or a study. A recipe that extends another is printed with the fields that result."""
    from eva_stages.core.packaged_files import with_schema_place
    from eva_stages.core.recipe_files import complete_text
    from eva_stages.core.study_files import find_study
    from eva_stages.core.terminal import print_text

    found_study = find_study(name)
    print_text(with_schema_place(found_study[1] if found_study else complete_text(name)))


@app.command("diff")
def diff(first: FirstArgument, second: SecondArgument, as_json: JsonOption = False) -> None:
    """The fields in which two recipes differ, with both values, defaults included."""
    from cli.shared import show as show_document
    from eva_stages.core.recipe_difference import difference_table, recipe_difference
    from eva_stages.core.recipe_files import load_recipe
    from eva_stages.core.terminal import print_text
    from eva_stages.core.text_table import as_rich

    document = recipe_difference([first, second], [load_recipe(first), load_recipe(second)])
    if not document["differences"] and not as_json:
        print_text(f"{first} and {second} are the same recipe\n")
        return
    show_document(document, lambda hidden_document: as_rich([difference_table(hidden_document)]), as_json)


@app.command("schema")
def schema(kind: Annotated[Literal["recipe", "study"], typer.Argument(metavar="recipe|study")] = "recipe") -> None:
    """Print the JSON schema of recipes, or of studies, for editors. Copied recipes name it in their first line."""
    from eva_stages.core.recipe_schema import schema_text

    print(schema_text(kind), end="")


@app.command("copy")
def copy(name: NameArgument, path: Annotated[Path, typer.Argument(metavar="PATH")]) -> None:
    """Copy a recipe or a study to a file of your own, with the folder of the files that a recipe names."""
    import shutil

    from eva_stages.core.errors import ConfigError
    from eva_stages.core.packaged_files import files_beside, with_schema_place
    from eva_stages.core.recipe_files import recipe_text
    from eva_stages.core.study_files import find_study
    from eva_stages.core.terminal import print_text

    found_study, files = find_study(name), files_beside(name)
    text = with_schema_place(found_study[1] if found_study else recipe_text(name)[1])
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
    print_text(f"{path}: edit it, then eva {'plan' if found_study else 'validate'} {path}\n")


def validate(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    trust: TrustOption = False,
    online: OnlineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check a recipe, or all arms of a study, and everything named there; report all errors."""
    from eva_stages.api.preparing import validation_notes
    from eva_stages.core.errors import ConfigError
    from eva_stages.core.recipe_files import load_recipe
    from eva_stages.core.redaction import redact_data
    from eva_stages.core.study_files import find_study, load_study
    from eva_stages.core.terminal import note, print_json, print_text

    try:
        changes = changes_of(overrides, trust)
        notes = validation_notes(load_recipe(recipe, changes) if find_study(recipe) is None else load_study(recipe, {}, changes), online)
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
