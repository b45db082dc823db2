"""How far a run is, from its folder alone; once, or again and again while it goes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from eva_stages.core.errors import DamagedError
from eva_stages.core.ledger import Attempts, actual, earlier_attempts, planned_entries, sums
from eva_stages.core.parts import part_facts, part_files
from eva_stages.core.progress import duration
from eva_stages.core.recipe_files import recipe_of_run
from eva_stages.core.run_folder import RecordedRun, Run
from eva_stages.core.stage import Outside, RowStage, Stage, closure
from eva_stages.core.tables import FILE, count_rows
from eva_stages.core.variants import other_variants
from eva_stages.solver.launching import METRICS, last_entry
from eva_stages.views.health_warnings import counted, health_of
from pipelines.iteration import iterations

AROUND = 5
"""Lines of a terminal that the table needs besides its rows."""


class Watch:
    """Looks at a run; what the recipe consists of is worked out once, and part files that have been read are not read again."""

    def __init__(self, run: Run) -> None:
        self._run = RecordedRun(run.root)
        self._recipe = recipe_of_run(run.root)
        self._stages = closure([stage for one in iterations(self._recipe) for stage in one.stages])
        self._parts: dict[Path, int] = {}

    def document(self) -> dict[str, Any]:
        """Every stage of the run's recipe with its state: done, running, failed, unfinished or to do, and with its plan.

        Finished ones have what they took (`core.ledger.actual`); `ledger` has the sums of that, and what is planned for the others.
        """
        holder, events = self._run.holder(), self._run.events()
        last = {event.get("fingerprint"): event for event in events}
        attempts, planned = earlier_attempts(events), planned_entries(self._run.root)
        entries = []
        for stage in self._stages:
            tried = attempts.get(stage.fingerprint, Attempts())
            told = self._entry(stage, last.get(stage.fingerprint, {}), holder is not None, tried)
            entries.append({**told, "planned": planned.get(stage.fingerprint[:12])})
        ledger = sums([entry for entry in entries if entry["state"] == "done"]) | _left(entries)
        named = {"recipe": self._recipe.name, "run": str(self._run.root), "locked_by": holder}
        return {**named, "stages": entries, "ledger": ledger, "variants": self._variants(entries)}

    def _variants(self, entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Recipes that were run in the folder before, with the finished stages that only they have."""
        shown = {f"{entry['stage']}-{entry['outdated']}" for entry in entries if entry.get("outdated")}
        found = []
        for variant in other_variants(self._run):
            stages = tuple(name for name in variant.stages if name not in shown)
            if stages:
                recipe = None if variant.recipe is None else str(variant.recipe)
                said = replace(variant, stages=stages).said(self._run.root)
                found.append({"recipe": recipe, "stages": list(stages), "changes": list(variant.changes), "said": said})
        return found

    def _entry(self, stage: Stage, event: dict[str, Any], held: bool, attempts: Attempts) -> dict[str, Any]:
        run = self._run
        entry = {"stage": stage.label, "fingerprint": stage.fingerprint[:12]}
        if run.done(stage):
            manifest = run.manifest(stage)
            health = health_of(run, stage)
            made = run.place(stage).name.rpartition("-")[2]
            outdated = None if made == entry["fingerprint"] else made
            facts = {"counts": manifest["counts"], "warnings": health["warnings"] if health else [], "outdated": outdated}
            return {**entry, "state": "done", **facts, **actual(manifest, attempts)}
        work = run.work / stage.folder
        rows = sum(map(self._rows, part_files(work / "parts"))) or None
        state = "failed" if event.get("event") == "failed" else "unfinished" if work.is_dir() else "to do"
        cause = event.get("cause") if state == "failed" else None
        told: dict[str, Any] = {**entry, "state": state, "rows": rows, "seconds": None, "counts": {}, "cause": cause}
        if not held or event.get("event") not in ("start", "resume"):
            return told
        return {**told, "state": "running", "total": self._total(stage), "since": event["time"], "step": last_entry(work / METRICS)}

    def _rows(self, part: Path) -> int:
        """Input rows behind a part file; 0 if the stage was finished while we looked, or the file is damaged."""
        if part not in self._parts:
            try:
                self._parts[part] = part_facts(part)[0]
            except DamagedError:
                return 0
        return self._parts[part]

    def _total(self, stage: Stage) -> int | None:
        if not isinstance(stage, RowStage):
            return None
        first = stage.inputs[stage.sources[0]]
        ready = isinstance(first, Outside) or self._run.done(first)
        folder = self._run.folder(first)
        return count_rows(folder) if ready and (folder / FILE).is_file() else None


def _left(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """The time planned for the stages that are not done, less what a running one has had; null where it is not known of one."""
    waiting = [_waiting(entry) for entry in entries if entry["state"] != "done"]
    known = [seconds for seconds in waiting if seconds is not None]
    return {"left_stages": len(waiting), "left_seconds": round(sum(known), 3) if len(known) == len(waiting) else None}


def _waiting(entry: dict[str, Any]) -> float | None:
    seconds: float | None = (entry["planned"] or {}).get("seconds_expected")
    if seconds is None or entry["state"] != "running":
        return seconds
    return max(0.0, seconds - (datetime.now(UTC) - datetime.fromisoformat(entry["since"])).total_seconds())


def status_document(run: Run) -> dict[str, Any]:
    """Every stage of the run's recipe with its state."""
    return Watch(run).document()


def status_table(document: dict[str, Any], height: int | None = None) -> Table:
    """The status for a terminal.

    Args:
        height: lines there are; with fewer than the stages need, those around the first that is not done are shown.
    """
    holder = document["locked_by"]
    title = f"{document['recipe']} in {document['run']}{f', worked on by {holder}' if holder else ''}"
    table = Table(title=Text(title), title_justify="left")
    for column in ("stage", "state", "rows", "seconds", "planned"):
        table.add_column(column, justify="left" if column in ("stage", "state") else "right")
    stages = document["stages"]
    start, end = _window([entry["state"] for entry in stages], len(stages) if height is None else max(3, height - AROUND))
    for entry in stages[start:end]:
        table.add_row(*(Text(cell) for cell in (*_cells(entry), _planned(entry["planned"]))))
    done = sum(entry["state"] == "done" for entry in stages)
    hidden = f"; {len(stages) - (end - start)} not shown" if end - start < len(stages) else ""
    others = "".join(f"\n{variant['said']}" for variant in document.get("variants", []))
    table.caption = f"{done} of {len(stages)} stages done{hidden}{_told(document['ledger'])}{others}"
    table.caption_justify = "left"
    return table


def _planned(planned: dict[str, Any] | None) -> str:
    seconds = (planned or {}).get("seconds_expected")
    return "" if seconds is None else f"{seconds:.1f}"


def _told(ledger: dict[str, Any]) -> str:
    """What the stages took against their plan, what interrupted attempts took, and what is left, as far as it is known."""
    said = []
    if ledger["compared_seconds"] is not None:
        low, high = (duration(ledger[f"planned_seconds_{name}"]) for name in ("low", "high"))
        planned = f"{duration(ledger['planned_seconds_expected'])} planned ({low} - {high})"
        said.append(f"{ledger['compared_stages']} of them took {duration(ledger['compared_seconds'])}, {planned}")
    if ledger["earlier_attempts"]:
        said.append(f"{ledger['earlier_attempts']} attempts before took {duration(ledger['earlier_seconds'])}")
    if ledger["left_seconds"]:
        said.append(f"about {duration(ledger['left_seconds'])} left")
    return "".join(f"; {one}" for one in said)


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
    if entry.get("outdated"):
        return entry["stage"], "done, by another version or from other inputs", rows, seconds
    if entry.get("warnings"):
        return entry["stage"], f"done, {counted(entry['warnings'])}", rows, seconds
    if entry["state"] != "running":
        return entry["stage"], "done, reused" if entry.get("reused") else entry["state"], rows, seconds
    step = entry["step"]
    state = f"running, step {step['step']}/{step['total_steps']}, loss {step['loss']:.3f}" if step else "running"
    so_far = (datetime.now(UTC) - datetime.fromisoformat(entry["since"])).total_seconds()
    of = "" if entry["total"] is None else f" of {entry['total']:,}"
    return entry["stage"], state, f"{rows or 0}{of}" if of else rows, f"{max(so_far, 0):.0f} so far"
