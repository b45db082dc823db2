"""`eva status`: how far a run is."""

from typing import TYPE_CHECKING

from cli.shared import JsonOption, RunArgument, existing_run, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.status import Watch

SECONDS = 1.0
"""Between two looks."""


def status(run: RunArgument, as_json: JsonOption = False) -> None:
    """Every stage of a run: done, running, failed or to do. On a terminal it follows a run that is going, until it ends or Ctrl-C."""
    from rich.console import Console

    from pipelines.status import Watch, status_table

    watch, console = Watch(existing_run(run)), Console()
    document = watch.document()
    if as_json:
        print_json(document)
    elif document["locked_by"] and console.is_terminal:
        _follow(watch, console)
    else:
        console.print(status_table(document))


def _follow(watch: "Watch", console: "Console") -> None:
    """A live table, and the whole one at the end."""
    import time

    from rich.live import Live

    from pipelines.status import status_table

    document = watch.document()
    try:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while document["locked_by"]:
                live.update(status_table(document, console.height), refresh=True)
                time.sleep(SECONDS)
                document = watch.document()
    except KeyboardInterrupt:  # of the watching; the run goes on
        pass
    console.print(status_table(document))
