"""`eva report`: one run in plots, or several side by side."""

from typing import Annotated

import typer

from cli.completion import complete_run
from cli.next_steps import after_report
from cli.output_options import show_next
from cli.shared import existing_run


def report(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", autocompletion=complete_run, help="Folder or name of a run; two or more are compared.")
    ],
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Write one HTML file about a run (RUN/report.html, plots in RUN/report/), or about several runs (FIRST/comparison.html)."""
    from eva_stages.core.terminal import print_text
    from eva_stages.publishing.report_files import make_report

    path = make_report([existing_run(run) for run in runs])
    print_text(f"{path}\n")
    if open_it:
        typer.launch(str(path.resolve()))
    show_next(after_report(runs, open_it))
