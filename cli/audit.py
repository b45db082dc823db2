"""`eva audit`: can selecting prompts by a metric work in this run at all?"""

from typing import Annotated

import typer

from cli.shared import JsonOption, RunArgument, existing_run, show


def audit(
    run: RunArgument,
    iteration: Annotated[
        int | None,
        typer.Option("--iteration", metavar="T", min=1, help="Which iteration. [default: the first with evolved and scored prompts]"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Is informativeness measured reliably, and is it heritable? Per metric, with intervals, from the run's folder alone."""
    from eva_stages.views.audit_document import audit as audit_document
    from eva_stages.views.audit_tables import audit_view
    from eva_stages.views.history import read_history

    show(audit_document(read_history(existing_run(run)), iteration), audit_view, as_json)
