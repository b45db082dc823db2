"""How far a run is, from its folder alone; once, or again and again while it goes."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.table import Table
from rich.text import Text

from eva_stages.core.parts import part_facts
from eva_stages.core.recipes import load_recipe
from eva_stages.core.stage import Outside, RowStage, Stage, closure
from eva_stages.core.store import Run
from eva_stages.core.tables import FILE, count_rows
from pipelines.iteration import iterations

METRICS = "metrics.jsonl"
AROUND = 5
"""Lines of a terminal that the table needs besides its rows."""


class Watch:
    """Looks at a run; what the recipe consists of is worked out once, and part files that have been read are not read again."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._recipe = load_recipe(str(run.root / "recipe.yaml"))
        self._stages = closure([stage for one in iterations(self._recipe) for stage in one.stages])
        self._parts: dict[Path, int] = {}

    def document(self) -> dict[str, Any]:
        """Every stage of the run's recipe with its state: done, running, failed, unfinished or to do."""
        holder = self._run.holder()
        last = {event.get("fingerprint"): event for event in self._run.events()}
        entries = [self._entry(stage, last.get(stage.fingerprint, {}), holder is not None) for stage in self._stages]
        return {"recipe": self._recipe.name, "run": str(self._run.root), "locked_by": holder, "stages": entries}

    def _entry(self, stage: Stage, event: dict[str, Any], held: bool) -> dict[str, Any]:
        run = self._run
        entry = {"stage": stage.label, "fingerprint": stage.fingerprint[:12]}
        if run.done(stage):
            manifest = run.manifest(stage)
            return {**entry, "state": "done", "rows": manifest["rows"], "seconds": manifest["seconds"], "counts": manifest["counts"]}
        work = run.work / stage.folder
        rows = sum(self._rows(path) for path in work.glob("parts/*.parquet")) or None
        state = "failed" if event.get("event") == "failed" else "unfinished" if work.is_dir() else "to do"
        cause = event.get("cause") if state == "failed" else None
        told: dict[str, Any] = {**entry, "state": state, "rows": rows, "seconds": None, "counts": {}, "cause": cause}
        if not held or event.get("event") not in ("start", "resume"):
            return told
        return {**told, "state": "running", "total": self._total(stage), "since": event["time"], "step": _last_step(work / METRICS)}

    def _rows(self, part: Path) -> int:
        """Input rows behind a part file; 0 if the stage was finished while we looked, or the file is damaged."""
        if part not in self._parts:
            try:
                self._parts[part] = part_facts(part)[0]
            except (FileNotFoundError, pa.ArrowInvalid):
                return 0
        return self._parts[part]

    def _total(self, stage: Stage) -> int | None:
        if not isinstance(stage, RowStage):
            return None
        first = stage.inputs[stage.sources[0]]
        ready = isinstance(first, Outside) or self._run.done(first)
        folder = self._run.folder(first)
        return count_rows(folder) if ready and (folder / FILE).is_file() else None


def status_document(run: Run) -> dict[str, Any]:
    """Every stage of the run's recipe with its state."""
    return Watch(run).document()


def _last_step(metrics: Path) -> dict[str, Any] | None:
    """The last whole line of what a training writes down; None where there is no training."""
    try:
        lines = metrics.read_text().split("\n")[:-1]
        step: dict[str, Any] | None = json.loads(lines[-1]) if lines else None
    except (FileNotFoundError, ValueError):
        return None
    return step


def status_table(document: dict[str, Any], height: int | None = None) -> Table:
    """The status for a terminal.

    Args:
        height: lines there are; with fewer than the stages need, those around the first that is not done are shown.
    """
    holder = document["locked_by"]
    title = f"{document['recipe']} in {document['run']}{f', worked on by {holder}' if holder else ''}"
    table = Table(title=Text(title), title_justify="left")
    for column in ("stage", "state", "rows", "seconds"):
        table.add_column(column, justify="left" if column in ("stage", "state") else "right")
    stages = document["stages"]
    start, end = _window([entry["state"] for entry in stages], len(stages) if height is None else max(3, height - AROUND))
    for entry in stages[start:end]:
        table.add_row(*(Text(cell) for cell in _cells(entry)))
    done = sum(entry["state"] == "done" for entry in stages)
    hidden = f"; {len(stages) - (end - start)} not shown" if end - start < len(stages) else ""
    table.caption, table.caption_justify = f"{done} of {len(stages)} stages done{hidden}", "left"
    return table


def _window(states: list[str], room: int) -> tuple[int, int]:
    """Which rows are shown: a third of them done ones."""
    current = next((index for index, state in enumerate(states) if state != "done"), len(states))
    start = max(0, min(current - room // 3, len(states) - room))
    return start, min(len(states), start + room)


def _cells(entry: dict[str, Any]) -> tuple[str, str, str, str]:
    rows = "" if entry["rows"] is None else f"{entry['rows']:,}"
    seconds = "" if entry["seconds"] is None else f"{entry['seconds']:.1f}"
    if entry["state"] == "failed":
        return entry["stage"], f"failed: {entry['cause']}", rows, seconds
    if entry["state"] != "running":
        return entry["stage"], entry["state"], rows, seconds
    step = entry["step"]
    state = f"running, step {step['step']}/{step['total_steps']}, loss {step['loss']:.3f}" if step else "running"
    so_far = (datetime.now(UTC) - datetime.fromisoformat(entry["since"])).total_seconds()
    of = "" if entry["total"] is None else f" of {entry['total']:,}"
    return entry["stage"], state, f"{rows or 0}{of}" if of else rows, f"{max(so_far, 0):.0f} so far"
