"""`eva status`: how far a run is."""

from cli.shared import JsonOption, RunArgument, existing_run, print_json


def status(run: RunArgument, as_json: JsonOption = False) -> None:
    """Every stage of a run: done, running, failed or to do, and where its rows are."""
    from rich.console import Console

    from pipelines.status import status_document, status_table

    document = status_document(existing_run(run))
    if as_json:
        print_json(document)
    else:
        Console().print(status_table(document))
