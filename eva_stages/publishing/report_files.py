"""The report of a run, and of several runs the comparison."""

from collections.abc import Sequence
from pathlib import Path

from eva_stages.core.durable import writing_to
from eva_stages.core.errors import ConfigError
from eva_stages.core.run_folder import Run
from eva_stages.publishing.report.page import write_report
from eva_stages.views.history import read_history


def make_report(runs: Sequence[Run]) -> Path:
    """Write it into the first run's folder; returns the HTML file.

    Raises:
        ConfigError: if a run has no complete stage, or is given twice.
        StageError: if the folder cannot be written to.
    """
    histories = [read_history(run) for run in runs]
    names = [history.name for history in histories]
    errors = [f"{history.root} has no complete stage yet; run it first" for history in histories if not history.artifacts]
    errors += [
        f"{name} is given twice; a comparison needs runs with different names" for name in dict.fromkeys(names) if names.count(name) > 1
    ]
    if errors:
        raise ConfigError(errors)
    with writing_to(runs[0].root):
        return write_report(histories)
