"""How far a run is, from its folder alone; once, or again and again while it runs."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from eva_stages.core.errors import DamagedError
from eva_stages.core.kinds import parsed_label
from eva_stages.core.ledger import Attempts, actual, earlier_attempts, planned_entries, sums
from eva_stages.core.logs import logs_in
from eva_stages.core.parts import part_facts, part_files
from eva_stages.core.planned_stages import PlannedStage
from eva_stages.core.progress import duration
from eva_stages.core.run_folder import Run
from eva_stages.core.store import WORK
from eva_stages.core.text_table import TextTable
from eva_stages.core.variants import other_variants
from eva_stages.solver.launching import METRICS, details_of, last_entry
from eva_stages.views.history import Artifact, History, read_history
from eva_stages.views.stage_events import RUNNING_EVENTS, last_events, stage_key
from eva_stages.views.summary_tables import counted_warnings

FRAME_LINES = 6
"""Lines of a terminal that the table needs in addition to its rows."""


class Watch:
    """Reads a run's state again and again; part files that have been read are not read again."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._parts: dict[Path, int] = {}

    def document(self) -> dict[str, Any]:
        """Every stage of the run's recipe with its state (done, running, failed, unfinished, to do) and with its plan.

        Complete stages have their cost (`core.ledger.actual`); `ledger` has the sums, and the plan for the remaining stages. `logs` are the
        files with what a stage's processes printed.
        """
        holder, events, history = self._run.holder(), self._run.events(), read_history(self._run)
        plan = planned_entries(self._run.root)
        event_of_stage = last_events(events)
        attempts = {stage_key(fingerprint): attempts_of_stage for fingerprint, attempts_of_stage in earlier_attempts(events).items()}
        entries = []
        for stage in history.stages:
            key = stage_key(stage.fingerprint)
            entry = {"stage": stage.label, "fingerprint": key}
            if artifact := history.artifact(stage):
                entry |= _complete_entry(artifact, attempts.get(key, Attempts())) | {"logs": _log_names(artifact.folder)}
            else:
                entry |= self._open_entry(history, stage, event_of_stage.get(key, {}), holder is not None)
            entries.append({**entry, "planned": plan.get(key)})
        ledger = sums([entry for entry in entries if entry["state"] == "done"]) | _remaining_work(entries)
        run_fields = {"recipe": history.recipe_name, "run": str(self._run.root), "locked_by": holder}
        return {**run_fields, "stages": entries, "ledger": ledger, "variants": self._variants()}

    def _variants(self) -> list[dict[str, Any]]:
        """Recipes that were run in the folder before, with the complete stages that only they have."""
        return [
            {
                "recipe": None if variant.recipe is None else str(variant.recipe),
                "stages": list(variant.stages),
                "changes": list(variant.changes),
                "said": variant.description(self._run.root),
            }
            for variant in other_variants(self._run)
        ]

    def _open_entry(self, history: History, stage: PlannedStage, event: Mapping[str, Any], is_locked: bool) -> dict[str, Any]:
        work = self._run.work / stage.folder
        rows = sum(map(self._rows, part_files(work / "parts"))) or None
        state = "failed" if event.get("event") == "failed" else "unfinished" if work.is_dir() else "to do"
        cause = event.get("cause") if state == "failed" else None
        entry: dict[str, Any] = {"state": state, "rows": rows, "seconds": None, "counts": {}, "cause": cause, "logs": _log_names(work)}
        if not is_locked or event.get("event") not in RUNNING_EVENTS:
            return entry
        total = _total(history, stage)
        progress = {"total": total, "since": event["time"], "step": last_entry(work / METRICS), "waiting_for": event.get("holder")}
        progress["resumed"] = event["event"] == "resume"
        return {**entry, "state": "running", **progress}

    def _rows(self, part: Path) -> int:
        """Input rows behind a part file; 0 if the stage was completed in the meantime, or the file is damaged."""
        if part not in self._parts:
            try:
                self._parts[part] = part_facts(part)[0]
            except DamagedError:
                return 0
        return self._parts[part]


def _log_names(folder: Path) -> list[str]:
    return [str(log) for log in logs_in(folder)]


def _complete_entry(artifact: Artifact, attempts: Attempts) -> dict[str, Any]:
    facts = {"counts": artifact.manifest["counts"], "warnings": artifact.warnings, "outdated": None}
    return {"state": "done", **facts, **actual(artifact.manifest, attempts)}


def _total(history: History, stage: PlannedStage) -> int | None:
    """Rows of the input that a row stage goes through; None for other stages, and where they are not known."""
    source = history.artifact_in(stage.inputs.get(stage.counted_input or "", ""))
    return history.size(source) if source and source.rows else None


def _remaining_work(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Add to every stage that is not complete what is left of it, and return the sum; null where that is not known."""
    seconds_of_name: dict[str, list[float]] = {}
    for entry in entries:
        if entry["state"] == "done":
            seconds_of_name.setdefault(_name(entry), []).append(entry["seconds"])
    open_entries = [entry for entry in entries if entry["state"] != "done"]
    for entry in open_entries:
        entry["left_seconds"] = _remaining_seconds(entry, seconds_of_name.get(_name(entry)))
    known_seconds = [entry["left_seconds"] for entry in open_entries if entry["left_seconds"] is not None]
    is_known = len(known_seconds) == len(open_entries)
    return {"left_stages": len(open_entries), "left_seconds": round(sum(known_seconds), 3) if is_known else None}


def _name(entry: dict[str, Any]) -> str:
    return parsed_label(entry["stage"])[1]


def _remaining_seconds(entry: dict[str, Any], known_seconds: list[float] | None) -> float | None:
    """How long a stage that is not complete takes from now on: a running one by its rate, if that is known."""
    seconds: float | None = (entry["planned"] or {}).get("seconds_expected")
    if seconds is None and known_seconds:
        seconds = sum(known_seconds) / len(known_seconds)
    if entry["state"] != "running":
        return seconds
    step, elapsed_seconds = entry["step"], _elapsed_seconds(entry)
    done_share = step["step"] / step["total_steps"] if step and step["total_steps"] else (entry["rows"] or 0) / (entry["total"] or 1)
    if 0 < done_share <= 1 and not entry["resumed"]:  # the rows of an earlier attempt were not computed in this time
        return elapsed_seconds * (1 / done_share - 1)
    return None if seconds is None else max(0.0, seconds - elapsed_seconds)


def _elapsed_seconds(entry: dict[str, Any]) -> float:
    return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(entry["since"])).total_seconds())


def status_table(document: dict[str, Any], height: int | None = None) -> TextTable:
    """The status as a table.

    Args:
        height: lines of the terminal; with fewer than the stages need, the table has those around the first that is not complete.
    """
    holder, stages = document["locked_by"], document["stages"]
    title = f"{document['recipe']} in {document['run']}{f', running: {holder}' if holder else ''}"
    start, end = _window([entry["state"] for entry in stages], len(stages) if height is None else max(3, height - FRAME_LINES))
    done_count = sum(entry["state"] == "done" for entry in stages)
    hidden_note = f"; {len(stages) - (end - start)} not shown" if end - start < len(stages) else ""
    notes = [f"{done_count} of {len(stages)} stages done{hidden_note}{_ledger_text(document['ledger'])}"]
    if any(entry.get("logs") for entry in stages):
        notes.append(f"logs: {document['run']}/stages/STAGE*/*.log; of unfinished stages: {document['run']}/{WORK}/STAGE*/*.log")
    notes += [variant["said"] for variant in document.get("variants", [])]
    rows = [(*_cells(entry), _planned_seconds(entry["planned"])) for entry in stages[start:end]]
    return TextTable(title, ("stage", "state", "rows", "seconds", "planned"), rows, notes, "llrrr")


def _planned_seconds(plan: dict[str, Any] | None) -> str:
    seconds = (plan or {}).get("seconds_expected")
    return "" if seconds is None else f"{seconds:.1f}"


def _ledger_text(ledger: dict[str, Any]) -> str:
    """Time of the stages against their plan, time of interrupted attempts, and remaining time, as far as they are known."""
    sentences = []
    if ledger["compared_seconds"] is not None:
        low, high = (duration(ledger[f"planned_seconds_{name}"]) for name in ("low", "high"))
        plan_text = f"{duration(ledger['planned_seconds_expected'])} planned ({low} - {high})"
        sentences.append(f"{ledger['compared_stages']} of them took {duration(ledger['compared_seconds'])}, {plan_text}")
    if ledger["earlier_attempts"]:
        plural = "" if ledger["earlier_attempts"] == 1 else "s"
        sentences.append(f"{ledger['earlier_attempts']} earlier attempt{plural} took {duration(ledger['earlier_seconds'])}")
    if ledger["left_seconds"]:
        sentences.append(f"about {duration(ledger['left_seconds'])} left")
    return "".join(f"; {sentence}" for sentence in sentences)


def _window(states: list[str], room: int) -> tuple[int, int]:
    """First and last row to show: a third of them are complete stages."""
    current = next((index for index, state in enumerate(states) if state != "done"), len(states))
    start = max(0, min(current - room // 3, len(states) - room))
    return start, min(len(states), start + room)


def _cells(entry: dict[str, Any]) -> tuple[str, str, str, str]:
    rows = "" if entry["rows"] is None else f"{entry['rows']:,}"
    seconds = "" if entry["seconds"] is None else f"{entry['seconds']:.1f}"
    if entry["state"] == "failed":
        return entry["stage"], f"failed: {entry['cause']}", rows, seconds
    if entry.get("warnings"):
        return entry["stage"], f"done, {counted_warnings(entry['warnings'])}", rows, seconds
    if entry["state"] != "running":
        return entry["stage"], "done, reused" if entry.get("reused") else entry["state"], rows, seconds
    step = entry["step"]
    state = f"running, step {step['step']}/{step['total_steps']}, {', '.join(details_of(step))}" if step else "running"
    if entry.get("waiting_for"):
        state = f"waiting for {entry['waiting_for']}"
    if entry.get("left_seconds") is not None:
        state += f", about {duration(entry['left_seconds'])} left"
    progress = rows if entry["total"] is None else f"{rows or 0} of {entry['total']:,}"
    return entry["stage"], state, progress, f"{_elapsed_seconds(entry):.0f} so far"
