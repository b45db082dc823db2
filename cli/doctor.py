"""`eva doctor`: what this machine has, what is missing or broken, and the fix for each."""

from typing import Annotated, Any

import typer

from cli.completion import complete_recipe
from cli.shared import JsonOption, SetOption, TrustOption, changes_of, show


def doctor(
    recipe: Annotated[
        str | None, typer.Argument(metavar="[RECIPE]", help="Also check what this recipe needs.", autocompletion=complete_recipe)
    ] = None,
    overrides: SetOption = None,
    trust: TrustOption = False,
    deep: Annotated[bool, typer.Option("--deep", help="Also run every engine and launch file that can run here, on tiny models.")] = False,
    online: Annotated[bool, typer.Option("--online", help="Connect to the servers of the recipe; asks nothing, costs nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check this machine: Python, packages, GPUs, disks, limits, tokens. Exit code 1 if something is broken, 0 if not."""
    from eva_stages.core.recipe_files import load_recipe
    from eva_stages.core.terminal import print_json
    from eva_stages.doctor.diagnosis import diagnose
    from eva_stages.doctor.findings import State

    document = diagnose(load_recipe(recipe, changes_of(overrides, trust)) if recipe else None, online)
    states = [row["state"] for row in document["rows"]]
    if not as_json:
        show(document, _view, as_json)
    if deep:
        deep_document = _run_deep_checks()
        document |= {"deep": deep_document}
        states += [check["state"] for check in deep_document["checks"]]
        if not as_json:
            show(deep_document, _deep_view, as_json)
    if as_json:
        print_json(document)
    if State.ERROR in states:
        raise typer.Exit(1)


def _run_deep_checks() -> dict[str, Any]:
    from eva_stages.core.sockets import use_short_temporary_folder
    from eva_stages.core.terminal import note
    from eva_stages.doctor.deep import check_all
    from eva_stages.doctor.device_findings import read_gpus

    use_short_temporary_folder()
    return check_all(read_gpus().visible_count, note)


def _view(document: dict[str, Any]) -> Any:
    from eva_stages.core.text_table import as_rich
    from eva_stages.doctor.findings import tables

    return as_rich(tables(document))


def _deep_view(document: dict[str, Any]) -> Any:
    from eva_stages.core.text_table import as_rich
    from eva_stages.doctor.deep import deep_table

    return as_rich([deep_table(document)])
