"""`eva runs` and `eva gc`: the runs of a folder, and what none of them needs."""

from pathlib import Path
from typing import Annotated

import typer

from cli.shared import JsonOption, show

FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of runs.", exists=True, file_okay=False)]


def runs(folder: FolderArgument = Path("runs"), as_json: JsonOption = False) -> None:
    """List runs with their variants, state, size and last activity."""
    from eva_stages.views.run_list import run_list, run_list_table

    show(run_list(folder), run_list_table, as_json, 112)


def gc(
    folder: FolderArgument = Path("runs"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be deleted, and delete nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete artifacts and unfinished work that no recipe of a run names, and what repairs put aside."""
    from eva_stages.core.garbage import delete_garbage, find_garbage, garbage_document, garbage_table

    garbage, skipped_entries = find_garbage(folder)
    if not dry_run:
        garbage, held_entries = delete_garbage(garbage)
        skipped_entries += held_entries
    show(garbage_document(folder, garbage, skipped_entries, dry_run), garbage_table, as_json)
