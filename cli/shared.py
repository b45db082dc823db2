"""What the commands share: options, opening a run, and the JSON on stdout."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.completion import complete_field, complete_recipe, complete_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType

    from eva_stages.core.config.recipe import Recipe
    from eva_stages.core.run_folder import Run

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="Path of a recipe, or name of a packaged one.", autocompletion=complete_recipe)
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Folder of a run, or its name below runs/.", autocompletion=complete_run)]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="Override a field of the recipe; may be repeated.", autocompletion=complete_field),
]
RunDirOption = Annotated[Path | None, typer.Option("--run-dir", metavar="D", help="Folder of the run.", show_default="runs/<recipe name>")]
StoreOption = Annotated[
    Path | None, typer.Option("--store", metavar="D", help="Folder where runs share artifacts.", show_default=".store beside the run")
]
RepairOption = Annotated[bool, typer.Option("--repair", help="Rebuild complete artifacts that have changed since they were built.")]
TrustOption = Annotated[bool, typer.Option("--trust", help="Allow code in files that the recipe names; as trust_code: true in the recipe.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout and nothing else.")]
OnlineOption = Annotated[
    bool, typer.Option("--online", help="Ask every server of the recipe one question, under its key; costs next to nothing.")
]
IterationOption = Annotated[int, typer.Option("--iteration", metavar="T", min=0, help="Which iteration; 0 is the base round.")]


def changes_of(overrides: list[str] | None, trust: bool) -> list[str]:
    """The overrides of a recipe that a command was given."""
    return [*(overrides or []), *(["trust_code=true"] if trust else [])]


_opened_folders: list[Path] = []


def present_run() -> Path | None:
    """The folder of the run that this command works on; None where there is none yet."""
    return next((folder for folder in _opened_folders if folder.is_dir()), None)


def opened_folder(folder: Path) -> Path:
    """The folder, which the traceback of an unexpected error is saved in."""
    _opened_folders.append(folder)
    return folder


def run_folder(recipe: "Recipe", run_dir: Path | None, store: Path | None) -> "Run":
    from eva_stages.api.run_places import run_of

    run = run_of(recipe, run_dir, store, "--store")
    opened_folder(run.root)
    return run


def study_folder(name: str) -> Path | None:
    """The folder of the study that the user names, as for `existing_run`; None if it is not one."""
    from eva_stages.api.run_places import existing_study

    folder = existing_study(name)
    return None if folder is None else opened_folder(folder)


def existing_run(run: str) -> "Run":
    """The run that the user names, by folder or by its name below `runs/`.

    Raises:
        ConfigError: if there is no such run, with the names of those that exist.
    """
    from eva_stages.api import run_places

    folder = run_places.existing_run(run)
    opened_folder(folder.root)
    return folder


def show(document: Any, table: "Callable[[Any], RenderableType]", as_json: bool) -> None:
    """Print a document as JSON, or as a table."""
    from eva_stages.core.redaction import hide_in_data
    from eva_stages.core.terminal import Terminal, print_json

    if as_json:
        print_json(document)
    else:
        Terminal().print(table(hide_in_data(document)))


def this_command() -> str:
    """The command as typed, for resuming."""
    return shlex.join(["eva", *sys.argv[1:]])


def repairing_command() -> str:
    """The command as typed, with `--repair` where it can."""
    runs = sys.argv[1:2] in (["run"], ["creator"], ["solver"], ["ablate"]) or sys.argv[1:3] == ["eval", "run"]
    return f"{this_command()} --repair" if runs else "the run's command with --repair"
