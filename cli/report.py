"""`eva report`: one run in plots, or several side by side."""

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cli.completion import complete_run
from cli.next_steps import after_report
from cli.output_options import show_next
from cli.shared import existing_run

if TYPE_CHECKING:
    from eva_stages.core.run_folder import Run


def report(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", autocompletion=complete_run, help="Folder or name of a run; two or more are compared.")
    ],
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Serve it to this machine's browsers while the run goes; writes nothing.")] = False,
) -> None:
    """Write one HTML file about a run (RUN/report.html, plots in RUN/report/), or about several runs (FIRST/comparison.html).

    Runs of a study are grouped by arm. With --watch, one run is shown live at a printed address until Ctrl-C (exit code 0).
    """
    from eva_stages.core.errors import ConfigError
    from eva_stages.core.terminal import print_text
    from eva_stages.publishing.report_files import make_report

    folders = [existing_run(run) for run in runs]
    if watch and len(folders) > 1:
        raise ConfigError([f"--watch shows one run, and {len(folders)} are given; leave out --watch to compare them"])
    if watch:
        _serve(folders[0], open_it)
        return
    path = make_report(folders)
    print_text(f"{path}\n")
    if open_it:
        typer.launch(str(path.resolve()))
    show_next(after_report(runs, open_it))


def _serve(run: "Run", open_it: bool) -> None:
    """Serve the live report until Ctrl-C or SIGTERM, which end the watching and not the run."""
    from eva_stages.core.terminal import note, print_text
    from eva_stages.publishing.live_report import LiveReport
    from eva_stages.publishing.report_server import ReportServer

    with ReportServer(LiveReport(run)) as server, contextlib.suppress(KeyboardInterrupt):
        port = server.server_port
        print_text(f"{server.url}\n")
        sys.stdout.flush()  # it is read before the command ends
        note(f"Ctrl-C ends the watching, not the run. To watch from another machine: ssh -L {port}:127.0.0.1:{port} HOST")
        if open_it:
            typer.launch(server.url)
        server.serve_forever()
