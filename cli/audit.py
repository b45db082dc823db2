"""`eva audit`: can selecting prompts by a metric work in this run at all?"""

from typing import Annotated

import typer

from cli.next_steps import after_audit
from cli.output_options import show_next
from cli.shared import JsonOption, RunArgument, existing_run, show


def audit(
    run: RunArgument,
    iteration: Annotated[
        int | None,
        typer.Option("--iteration", metavar="T", min=1, help="Which iteration.", show_default="the first with evolved and scored prompts"),
    ] = None,
    influence: Annotated[
        int | None,
        typer.Option("--influence", metavar="N", min=20, help="Also compute the one-step influence of up to N prompts; loads the policy."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Is informativeness measured reliably, and is it heritable? Per metric, with intervals, from the run's folder alone."""
    from eva_stages.views.audit_document import audit as audit_document
    from eva_stages.views.audit_tables import audit_view
    from eva_stages.views.history import read_history

    folder = existing_run(run)
    history = read_history(folder)
    document = audit_document(history, iteration)
    if influence is not None:
        from cli.influence_option import compute_influence

        compute_influence(folder, history, document["iteration"], influence)
        document = audit_document(history, iteration)
    show(document, audit_view, as_json)
    show_next(after_audit(run, influence is not None), as_json)
