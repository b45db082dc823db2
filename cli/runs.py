"""`eva runs` and `eva gc`: the runs of a folder, and what none of them needs."""

from pathlib import Path
from typing import Annotated

import typer

from cli.next_steps import after_collection, after_list
from cli.output_options import show_next
from cli.shared import JsonOption, show

FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of runs.")]


def runs(folder: FolderArgument = Path("runs"), as_json: JsonOption = False) -> None:
    """List runs with their variants, state, size and last activity."""
    from eva_stages.views.run_list import run_list, run_list_table

    _check_folder(folder)
    document = run_list(folder)
    show(document, run_list_table, as_json)
    show_next(after_list(document), as_json)


def gc(
    folder: FolderArgument = Path("runs"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be deleted, and delete nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete artifacts and unfinished work that no recipe of a run names, and what repairs put aside."""
    from eva_stages.core.garbage import delete_garbage, find_garbage, garbage_document, garbage_table

    _check_folder(folder)
    garbage, skipped_entries = find_garbage(folder)
    if not dry_run:
        garbage, held_entries = delete_garbage(garbage)
        skipped_entries += held_entries
    document = garbage_document(folder, garbage, skipped_entries, dry_run)
    show(document, garbage_table, as_json)
    show_next(after_collection(document), as_json)


def _check_folder(folder: Path) -> None:
    from eva_stages.core.errors import ConfigError

    if not folder.is_dir():
        raise ConfigError([f"there is no folder {folder}: name the folder of your runs; `eva run` creates runs/ in this directory"])
