"""`eva lineage`: where a prompt came from and what became of it."""

from typing import Annotated

import typer

from cli.shared import JsonOption, RunArgument, existing_run, show


def lineage(
    run: RunArgument,
    prompt_id: Annotated[str, typer.Argument(metavar="PROMPT_ID", help="Id of a prompt; the start of one gets suggestions.")],
    as_json: JsonOption = False,
    from_seed: Annotated[
        bool, typer.Option("--from-seed", help="The whole tree below the prompt's seed, rejected evolutions too.")
    ] = False,
) -> None:
    """From the seed to a prompt: mutations, answers and rewards, informativeness, pairs, checkpoints."""
    from eva_stages.views.history import read_history
    from eva_stages.views.lineage_view import steps_view, tree_view
    from eva_stages.views.prompt_lineage import Lineage

    lookup = Lineage(read_history(existing_run(run)))
    document = lookup.tree(prompt_id) if from_seed else lookup.trace(prompt_id)
    show(document, tree_view if from_seed else steps_view, as_json)
