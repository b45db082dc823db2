"""`eva status`: how far a run is."""

from typing import TYPE_CHECKING, Any

from cli.next_steps import after_status, after_study_status
from cli.output_options import show_next
from cli.shared import JsonOption, RunArgument, existing_run, show, study_folder

if TYPE_CHECKING:
    from rich.console import Group

    from eva_stages.core.terminal import Terminal
    from eva_stages.views.run_status import Watch

SECONDS = 1.0
"""Between two readings."""


def status(run: RunArgument, as_json: JsonOption = False) -> None:
    """Every stage of a run: done, running, failed or to do. On a terminal it follows a running run until it ends or Ctrl-C.

    Of a study: every run.
    """
    from eva_stages.core.terminal import Terminal
    from eva_stages.views.run_status import Watch
    from eva_stages.views.study_status import study_status, study_status_table

    if (folder := study_folder(run)) is not None:
        study_document = study_status(folder)
        show(study_document, study_status_table, as_json)
        show_next(after_study_status(study_document), as_json)
        return
    watch, terminal = Watch(existing_run(run)), Terminal()
    document = watch.document()
    if document["locked_by"] and terminal.is_terminal and not as_json:
        show_next(after_status(_follow(watch, terminal)))
    else:
        show(document, _status_view, as_json)
        show_next(after_status(document), as_json)


def _status_view(document: dict[str, Any], height: int | None = None) -> "Group":
    from eva_stages.core.text_table import as_rich
    from eva_stages.views.run_status import status_table

    return as_rich([status_table(document, height)])


def _follow(watch: "Watch", terminal: "Terminal") -> dict[str, Any]:
    """Show a live table, and the complete table at the end; returns its document."""
    import time

    from rich.live import Live

    from eva_stages.core.redaction import hide_in_data

    document = watch.document()
    try:
        with Live(console=terminal, auto_refresh=False, transient=True) as live:
            while document["locked_by"]:
                live.update(_status_view(hide_in_data(document), terminal.height), refresh=True)
                time.sleep(SECONDS)
                document = watch.document()
    except KeyboardInterrupt:  # Ctrl-C ends the watching; the run continues
        pass
    terminal.print(_status_view(hide_in_data(document)))
    return document
