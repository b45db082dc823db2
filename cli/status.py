"""`eva status`: how far a run is."""

from typing import TYPE_CHECKING

from cli.shared import JsonOption, RunArgument, existing_run, show

if TYPE_CHECKING:
    from eva_stages.core.terminal import Terminal
    from eva_stages.views.run_status import Watch

SECONDS = 1.0
"""Between two looks."""


def status(run: RunArgument, as_json: JsonOption = False) -> None:
    """Every stage of a run: done, running, failed or to do. On a terminal it follows a run that is going, until it ends or Ctrl-C."""
    from eva_stages.core.terminal import Terminal
    from eva_stages.views.run_status import Watch, status_table

    watch, terminal = Watch(existing_run(run)), Terminal()
    document = watch.document()
    if document["locked_by"] and terminal.is_terminal and not as_json:
        _follow(watch, terminal)
    else:
        show(document, status_table, as_json)


def _follow(watch: "Watch", terminal: "Terminal") -> None:
    """A live table, and the whole one at the end."""
    import time

    from rich.live import Live

    from eva_stages.core.redaction import hide_in_data
    from eva_stages.views.run_status import status_table

    document = watch.document()
    try:
        with Live(console=terminal, auto_refresh=False, transient=True) as live:
            while document["locked_by"]:
                live.update(status_table(hide_in_data(document), terminal.height), refresh=True)
                time.sleep(SECONDS)
                document = watch.document()
    except KeyboardInterrupt:  # of the watching; the run goes on
        pass
    terminal.print(status_table(hide_in_data(document)))
