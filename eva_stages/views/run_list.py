"""The runs of a folder: how far each is, its variants, and what it and the store take on disk."""

from pathlib import Path
from typing import Any

from rich.console import Group
from rich.filesize import decimal

from eva_stages.core.errors import DamagedError
from eva_stages.core.garbage import runs_in, stores_of, studies_in, study_runs
from eva_stages.core.manifests import MANIFEST
from eva_stages.core.ourfiles import read_yaml
from eva_stages.core.planned_stages import PLAN, read_planned_stages
from eva_stages.core.run_folder import Run
from eva_stages.core.store import file_stats
from eva_stages.core.study_record import read_study
from eva_stages.core.text_table import TextTable, as_rich
from eva_stages.core.variants import VARIANTS

HEADS = ("run", "recipe", "state", "size", "shared", "last activity")


def run_list(folder: Path) -> dict[str, Any]:
    """Every run of a folder with its variants, its state, its sizes in bytes and its last activity; the studies, and the stores."""
    runs = runs_in(folder)
    stores = []
    for store in stores_of(folder, runs):
        size, linked_bytes = _sizes([store.stages, store.work], 1)
        stores.append({"store": str(store.root), "bytes": size, "unused_bytes": size - linked_bytes})
    entries = {run.root: _run_entry(run) for run in runs}
    studies = [_study_entry(study, [entries[run.root] for run in study_runs(study)]) for study in studies_in(folder)]
    return {"folder": str(folder), "runs": list(entries.values()), "studies": studies, "stores": stores}


def _study_entry(folder: Path, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """A study: the sums over its runs. A file that runs share counts once."""
    size, shared_bytes = _sizes([folder], 2)
    complete_count = sum(run["stages"] is not None and run["complete_stages"] == run["stages"] for run in runs)
    try:
        planned_count = len(read_study(folder).runs)
    except DamagedError:
        planned_count = None
    return {
        "study": str(folder),
        "runs": [run["run"] for run in runs],
        "planned_runs": planned_count,
        "complete_runs": complete_count,
        "locked_by": Run(folder).holder(),
        "bytes": size,
        "shared_bytes": shared_bytes,
        "last_activity": max((run["last_activity"] for run in runs if run["last_activity"]), default=None),
    }


def _run_entry(run: Run) -> dict[str, Any]:
    own_folders = [run.stages] if run.shares else [run.stages, run.work]
    size, shared_bytes = _sizes(own_folders, 2 if run.shares else 1)
    events = run.events()
    return {
        "run": str(run.root),
        "recipe": _recipe_name(run.root / "recipe.yaml"),
        **_progress(run, run.root / PLAN),
        "locked_by": run.holder(),
        "bytes": size,
        "shared_bytes": shared_bytes,
        "last_activity": events[-1]["time"] if events else None,
        "variants": [entry for path in sorted((run.root / VARIANTS).glob("*.json")) if (entry := _variant(run, path))],
    }


def _progress(run: Run, plan: Path) -> dict[str, int | None]:
    """How many stages a recipe has and how many of them are complete; null where its list of stages is missing or damaged."""
    try:
        stages = read_planned_stages(plan)
    except DamagedError:
        return {"stages": None, "complete_stages": None}
    complete = sum((run.stages / stage.folder / MANIFEST).is_file() for stage in stages)
    return {"stages": len(stages), "complete_stages": complete}


def _variant(run: Run, plan: Path) -> dict[str, Any] | None:
    """Another recipe that was run in the folder; None for the present one."""
    try:
        present = [stage.folder for stage in read_planned_stages(run.root / PLAN)]
        if [stage.folder for stage in read_planned_stages(plan)] == present:
            return None
    except DamagedError:
        pass
    return {"recipe": str(plan.with_suffix(".yaml")), **_progress(run, plan)}


def _recipe_name(path: Path) -> str | None:
    try:
        return str(read_yaml(path)["name"])
    except (DamagedError, KeyError):
        return None


def _sizes(folders: list[Path], own_links: int) -> tuple[int, int]:
    """Bytes of all files, and of those that have more links than `own_links`."""
    stats = {(stat.st_dev, stat.st_ino): stat for folder in folders for stat in file_stats(folder)}.values()
    return sum(stat.st_size for stat in stats), sum(stat.st_size for stat in stats if stat.st_nlink > own_links)


def run_list_table(document: dict[str, Any]) -> Group:
    """The runs for a terminal, each followed by its variants."""
    rows = []
    in_studies = {run for study in document["studies"] for run in study["runs"]}
    for study in document["studies"]:
        state = f"{study['complete_runs']} of {study['planned_runs'] or 'unknown'} runs{', running' if study['locked_by'] else ''}"
        activity = (study["last_activity"] or "")[:19].replace("T", " ")
        rows.append([study["study"], "study", state, decimal(study["bytes"]), decimal(study["shared_bytes"]), activity])
    for run in (run for run in document["runs"] if run["run"] not in in_studies):
        state = f"{_state(run)}, running" if run["locked_by"] else _state(run)
        activity = (run["last_activity"] or "")[:19].replace("T", " ")
        rows.append([run["run"], run["recipe"], state, decimal(run["bytes"]), decimal(run["shared_bytes"]), activity])
        rows += [["", f"variant {variant['recipe']}", _state(variant), "", "", ""] for variant in run["variants"]]
    notes = [
        f"store {store['store']}: {decimal(store['bytes'])}; {decimal(store['unused_bytes'])} that no run uses (delete: eva gc)"
        for store in document["stores"]
    ]
    return as_rich([TextTable(f"runs in {document['folder']}", HEADS, rows, notes, "LllRRL", optional=("shared", "recipe"))])


def _state(entry: dict[str, Any]) -> str:
    if entry["stages"] is None:
        return "unknown"
    complete = entry["complete_stages"]
    return "complete" if complete == entry["stages"] else f"{complete} of {entry['stages']} stages"
