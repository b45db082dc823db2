"""`eva lineage`: the origin and the fate of a prompt."""

from typing import Annotated

import typer

from cli.next_steps import after_lineage
from cli.output_options import show_next
from cli.shared import JsonOption, RunArgument, existing_run, show


def lineage(
    run: RunArgument,
    prompt_id: Annotated[str, typer.Argument(metavar="PROMPT_ID", help="Id of a prompt; the beginning of an id prints suggestions.")],
    as_json: JsonOption = False,
    from_seed: Annotated[
        bool, typer.Option("--from-seed", help="The complete tree below the prompt's seed, with rejected evolutions.")
    ] = False,
) -> None:
    """From the seed to a prompt: mutations, responses and rewards, informativeness, pairs, checkpoints."""
    from eva_stages.views.history import read_history
    from eva_stages.views.lineage_view import steps_view, tree_view
    from eva_stages.views.prompt_lineage import Lineage

    lookup = Lineage(read_history(existing_run(run)))
    document = lookup.tree(prompt_id) if from_seed else lookup.trace(prompt_id)
    show(document, tree_view if from_seed else steps_view, as_json)
    show_next(after_lineage(run, prompt_id, from_seed), as_json)
