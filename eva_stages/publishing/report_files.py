"""The report of a run, and the comparison of several with their scores held against each other question by question."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eva_stages.core.durable import writing_to
from eva_stages.core.errors import ConfigError
from eva_stages.core.manifests import content
from eva_stages.core.run_folder import Run
from eva_stages.publishing.report.page import write_report
from eva_stages.views.comparison import Values, compare, stage_values
from eva_stages.views.history import History, read_history


def make_report(runs: Sequence[Run]) -> Path:
    """Write it into the first run's folder; returns the HTML file.

    Raises:
        ConfigError: if a run has no finished stage, or one stands twice.
        StageError: if the folder cannot be written to.
    """
    histories = [read_history(run) for run in runs]
    names = [history.name for history in histories]
    faults = [f"{run.root} has no finished stage yet; run it first" for run, one in zip(runs, histories, strict=True) if not one.artifacts]
    faults += [
        f"{name} is given twice; a comparison needs runs with different names" for name in dict.fromkeys(names) if names.count(name) > 1
    ]
    if faults:
        raise ConfigError(faults)
    with writing_to(runs[0].root):
        return write_report(histories, _differences(*histories[:2]) if len(runs) > 1 else None)


def _differences(a: History, b: History) -> dict[str, Any] | None:
    """Of two runs; None where they have no finished benchmark in common."""
    try:
        return compare(a.name, _values(a), b.name, _values(b))
    except ConfigError:
        return None


def _values(history: History) -> Values:
    """What the run's policies scored on every question, as it is on disk."""
    found: Values = {}
    for one in history.artifacts:
        found |= stage_values(one.stage, one.iteration, content(one.folder), one.manifest)
    return found
