"""How far the runs of a study are, from its folder alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Group

from eva_stages.core.errors import DamagedError
from eva_stages.core.planned_stages import PlannedStage
from eva_stages.core.run_folder import Run
from eva_stages.core.study_record import StudyRun, read_study
from eva_stages.core.text_table import TextTable, as_rich
from eva_stages.views.stage_events import RUNNING_EVENTS, last_events, stage_key
from eva_stages.views.study_runs import DONE_STATE, FAILED_STATE, read_runs

RUNNING_STATE = "running"
HEADS = ("arm", "done", "running", "failed", "to do")


def study_status(folder: Path) -> dict[str, Any]:
    """Every run of a study: its state (done, running, failed, unfinished, missing), its complete stages, the running stage or the cause.

    A run is done if it has the score that the study compares.
    """
    record = read_study(folder)
    states = {(result.run.arm, result.run.seed): result for result in read_runs(folder, record)}
    entries = []
    for run in record.runs:
        result = states[run.arm, run.seed]
        entry = {**_progress(folder, run), "state": result.state, "cause": result.cause if result.state == FAILED_STATE else None}
        entries.append({**entry, "state": RUNNING_STATE} if entry["running_stage"] and result.state != DONE_STATE else entry)
    return {
        "study": record.name,
        "folder": str(folder),
        "question": record.question,
        "command": record.command,
        "locked_by": Run(folder).holder(),
        "runs": entries,
    }


def _progress(folder: Path, study_run: StudyRun) -> dict[str, Any]:
    run = Run(folder / study_run.folder)
    entry = {"arm": study_run.arm, "seed": study_run.seed, "run": study_run.folder}
    try:
        stages = run.planned_stages() if run.root.is_dir() else []
    except DamagedError:
        stages = []
    open_stages = [stage for stage in stages if not run.holds(stage)]
    counts = {"stages": len(stages) or None, "complete_stages": len(stages) - len(open_stages)}
    return {**entry, **counts, "running_stage": _running_stage(run, open_stages)}


def _running_stage(run: Run, open_stages: list[PlannedStage]) -> str | None:
    """The stage that a process computes now."""
    if not open_stages or run.holder() is None:
        return None
    events = last_events(run.events())
    running_keys = {key for key, event in events.items() if event["event"] in RUNNING_EVENTS}
    return next((stage.label for stage in open_stages if stage_key(stage.fingerprint) in running_keys), None)


def study_status_table(document: Mapping[str, Any]) -> Group:
    """A row for each arm, with the seeds of its runs that are running or failed; the causes below."""
    rows = []
    for arm in dict.fromkeys(entry["arm"] for entry in document["runs"]):
        entries = [entry for entry in document["runs"] if entry["arm"] == arm]
        running_texts = [f"{entry['seed']} ({entry['running_stage']})" for entry in entries if entry["state"] == RUNNING_STATE]
        failed_seeds = [str(entry["seed"]) for entry in entries if entry["state"] == FAILED_STATE]
        done_count = sum(entry["state"] == DONE_STATE for entry in entries)
        to_do_count = len(entries) - done_count - len(running_texts) - len(failed_seeds)
        rows.append([arm, f"{done_count} of {len(entries)}", ", ".join(running_texts), ", ".join(failed_seeds), str(to_do_count or "")])
    notes = [document["question"], *(f"{entry['run']} failed: {entry['cause']}" for entry in document["runs"] if entry["cause"])]
    notes += [f"in use by {document['locked_by']}"] if document["locked_by"] else []
    return as_rich([TextTable(f"{document['study']} in {document['folder']}", HEADS, rows, notes, "LrLLr")])
