"""How far a run is, from its folder alone."""

from typing import Any

from rich.table import Table

from eva_stages.core.parts import part_facts
from eva_stages.core.recipes import load_recipe
from eva_stages.core.stage import Stage, closure
from eva_stages.core.store import Run
from pipelines.iteration import iterations


def status_document(run: Run) -> dict[str, Any]:
    """Every stage of the run's recipe with its state: done, failed, unfinished or to do."""
    recipe = load_recipe(str(run.root / "recipe.yaml"))
    stages = closure([stage for one in iterations(recipe) for stage in one.stages])
    last = {event.get("fingerprint"): event for event in run.events()}
    entries = [_entry(run, stage, last.get(stage.fingerprint, {})) for stage in stages]
    return {"recipe": recipe.name, "run": str(run.root), "locked_by": run.holder(), "stages": entries}


def _entry(run: Run, stage: Stage, event: dict[str, Any]) -> dict[str, Any]:
    entry = {"stage": stage.label, "fingerprint": stage.fingerprint[:12]}
    if run.done(stage):
        manifest = run.manifest(stage)
        return {**entry, "state": "done", "rows": manifest["rows"], "seconds": manifest["seconds"], "counts": manifest["counts"]}
    parts = run.work / stage.folder / "parts"
    rows = sum(part_facts(path)[0] for path in parts.glob("*.parquet"))
    started = (run.work / stage.folder).is_dir()
    state = "failed" if event.get("event") == "failed" else "unfinished" if started else "to do"
    cause = event.get("cause") if state == "failed" else None
    return {**entry, "state": state, "rows": rows or None, "seconds": None, "counts": {}, "cause": cause}


def status_table(document: dict[str, Any]) -> Table:
    """The status for a terminal."""
    holder = document["locked_by"]
    table = Table(title=f"{document['recipe']} in {document['run']}{f', worked on by {holder}' if holder else ''}", title_justify="left")
    for column in ("stage", "state", "rows", "seconds"):
        table.add_column(column, justify="left" if column in ("stage", "state") else "right")
    for entry in document["stages"]:
        state = f"failed: {entry['cause']}" if entry["state"] == "failed" else entry["state"]
        rows = "" if entry["rows"] is None else f"{entry['rows']:,}"
        table.add_row(entry["stage"], state, rows, "" if entry["seconds"] is None else f"{entry['seconds']:.1f}")
    return table
