"""Garbage: artifacts and unfinished work that no recipe of a run names, and damaged artifacts that repairs moved away.

An artifact in a store is also needed while a run of another folder links it. Anything that a process has locked is not deleted.
"""

import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.filesize import decimal

from eva_stages.core.errors import DamagedError, LockedError
from eva_stages.core.manifests import MANIFEST
from eva_stages.core.planned_stages import PLAN, read_planned_stages
from eva_stages.core.run_folder import DAMAGED_FOLDER, PARTIAL_FOLDER, Run, attempt_record
from eva_stages.core.store import STORE, WORK, Store, file_stats, recorded_store
from eva_stages.core.study_record import STUDY_FILE
from eva_stages.core.text_table import TextTable, as_rich
from eva_stages.core.variants import VARIANTS

UNNAMED_REASON = "no recipe of a run names it"
REPAIR_REASON = "moved away by a repair"
_NAME = re.compile(r"(\d+-[\w.-]+-[0-9a-f]{12})(\.lock|\.ready|\.removed|\.\d+)?")
"""What eva creates in the folders of runs and stores: the folder of a stage, and what belongs to it. Other files are left alone."""


@dataclass(frozen=True)
class Garbage:
    """A folder or file that can be deleted."""

    path: Path
    reason: str
    owner: Run | Store
    bytes: int = 0
    """Bytes that its deletion frees, after the entries before it."""


@dataclass(frozen=True)
class SkippedPath:
    """A path that was not examined or not deleted."""

    path: Path
    reason: str


def runs_in(folder: Path) -> list[Run]:
    """The runs below a folder and those of the studies below it, or the run or the study that it is."""
    if (folder / "recipe.yaml").is_file():
        return [Run(folder)]
    own_runs = [Run(path.parent) for path in sorted(folder.glob("*/recipe.yaml"))]
    return [*own_runs, *(run for study in studies_in(folder) for run in study_runs(study))]


def studies_in(folder: Path) -> list[Path]:
    """The studies below a folder, or the study that it is."""
    return [folder] if (folder / STUDY_FILE).is_file() else [path.parent for path in sorted(folder.glob(f"*/{STUDY_FILE}"))]


def study_runs(folder: Path) -> list[Run]:
    """The runs in the folder of a study, those of arms that it no longer has included."""
    return [Run(path.parent) for path in sorted(folder.glob("*/*/recipe.yaml"))]


def stores_of(folder: Path, runs: Sequence[Run]) -> list[Store]:
    """The store beside the runs of a folder, and those that the runs share."""
    roots = {root.resolve() for root in (folder / STORE, *map(recorded_store, (run.root for run in runs))) if root is not None}
    return [Store(root) for root in sorted(roots) if (root / WORK).is_dir()]


def named_folders(root: Path) -> set[str] | None:
    """The folders of stages that the recipes of a run name; None where the run has no list of stages.

    Raises:
        DamagedError: if a list cannot be read.
    """
    plans = [root / PLAN, *sorted((root / VARIANTS).glob("*.json"))]
    return {stage.folder for plan in plans for stage in read_planned_stages(plan)} if plans[0].is_file() else None


def find_garbage(folder: Path) -> tuple[list[Garbage], list[SkippedPath]]:
    """The garbage of a folder of runs, and the paths that were not examined."""
    runs, garbage, skipped_paths = runs_in(folder), list[Garbage](), list[SkippedPath]()
    stores, named_stages = stores_of(folder, runs), set[str]()
    for neighbour in (run for store in stores for run in runs_in(store.root.parent)):  # `folder` may be one run of several
        with suppress(DamagedError):
            named_stages |= named_folders(neighbour.root) or set()
    for run in runs:
        try:
            names = named_folders(run.root)
        except DamagedError as error:
            names = None
            skipped_paths.append(SkippedPath(run.root, f"its artifacts are not deleted: {error}"))
        if names is None:  # so every stage may be needed
            names = {path.name for path in run.stages.glob("*")}
        named_stages |= names
        if holder := run.holder():
            skipped_paths.append(SkippedPath(run.root, f"in use by {holder}"))
            named_stages |= {path.name for path in run.stages.glob("*")}
            continue
        garbage += [Garbage(path, UNNAMED_REASON, run) for path, name in _entries(run.stages) if name not in names]
        garbage += [Garbage(path, REPAIR_REASON, run) for path, _ in _entries(run.root / DAMAGED_FOLDER)]
        garbage += [Garbage(path, "left by a killed process", run) for path in [run.root / PARTIAL_FOLDER] if path.is_dir()]
        if not run.shares:
            garbage += [Garbage(path, UNNAMED_REASON, run) for path in _unnamed_work(run.store, names)]
    for store in stores:
        for path, name in _entries(store.stages):
            if name not in named_stages and not _has_other_links(path, [entry.path for entry in garbage]):
                garbage.append(Garbage(path, UNNAMED_REASON, store))
        garbage += [Garbage(path, UNNAMED_REASON, store) for path in _unnamed_work(store, named_stages)]
    return list(_with_sizes(garbage)), skipped_paths


def _unnamed_work(store: Store, named_stages: set[str]) -> Iterator[Path]:
    """Unfinished work that is named neither by a run of the folder nor by the run that started it."""
    for path, name in _entries(store.work):
        if name in named_stages and path.suffix not in (".ready", ".removed"):
            continue
        owner = attempt_record(path).get("run")
        try:
            is_named = owner is not None and Path(owner).is_dir() and name in (named_folders(Path(owner)) or {name})
        except DamagedError:
            continue
        if not is_named:
            yield path


def _entries(folder: Path) -> list[tuple[Path, str]]:
    """What eva created in a folder, each with the stage's folder that it belongs to."""
    return [(path, name) for path in sorted(folder.glob("*")) if (name := _stage_folder(path))]


def _stage_folder(path: Path) -> str:
    """The stage's folder that something in a store or a run belongs to; empty if eva did not create it."""
    match = _NAME.fullmatch(path.name)
    return match[1] if match else ""


def _has_other_links(artifact: Path, doomed_folders: Sequence[Path]) -> bool:
    """Whether a run still links a store's artifact after the doomed folders are deleted."""
    with suppress(FileNotFoundError):
        manifest = artifact / MANIFEST
        links = sum((path / MANIFEST).is_file() and manifest.samefile(path / MANIFEST) for path in doomed_folders)
        return manifest.stat().st_nlink - links > 1
    return False


def _with_sizes(garbage: Sequence[Garbage]) -> Iterator[Garbage]:
    """Add the freed bytes: a file is freed with the last of its links."""
    removed_links: Counter[tuple[int, int]] = Counter()
    for entry in garbage:
        freed = 0
        for stat in file_stats(entry.path):
            removed_links[stat.st_dev, stat.st_ino] += 1
            freed += stat.st_size if removed_links[stat.st_dev, stat.st_ino] == stat.st_nlink else 0
        yield replace(entry, bytes=freed)


def delete_garbage(garbage: Sequence[Garbage]) -> tuple[list[Garbage], list[SkippedPath]]:
    """Delete garbage that no process has locked; returns the deleted entries and the skipped paths."""
    deleted_entries, skipped_paths = list[Garbage](), list[SkippedPath]()
    for entry in garbage:
        if (reason := _delete(entry)) is None:
            deleted_entries.append(entry)
        else:
            skipped_paths.append(SkippedPath(entry.path, reason))
    return deleted_entries, skipped_paths


def _delete(entry: Garbage) -> str | None:
    """Delete one entry; returns the reason if a process has locked it."""
    if isinstance(entry.owner, Run):
        try:
            with entry.owner.lock():
                if entry.path.name in (named_folders(entry.owner.root) or ()):  # by a recipe that was run in the meantime
                    return "a recipe of the run names it"
                _remove(entry.path)
        except (LockedError, DamagedError) as error:
            return str(error)
        return None
    with entry.owner.lock(_stage_folder(entry.path), "for eva gc", wait=False) as lock:
        if lock is None:
            return "a process computes it"
        _remove(entry.path)
    return None


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def garbage_document(folder: Path, garbage: Sequence[Garbage], skipped_paths: Sequence[SkippedPath], dry_run: bool) -> dict[str, Any]:
    """The deleted entries (of a dry run: those that would be deleted) and the skipped paths."""
    return {
        "folder": str(folder),
        "dry_run": dry_run,
        "bytes": sum(entry.bytes for entry in garbage),
        "deleted": [{"path": str(entry.path), "bytes": entry.bytes, "reason": entry.reason} for entry in garbage],
        "skipped": [{"path": str(entry.path), "reason": entry.reason} for entry in skipped_paths],
    }


def garbage_table(document: dict[str, Any]) -> Group:
    """The document for a terminal."""
    rows = [[entry["path"], decimal(entry["bytes"]), entry["reason"]] for entry in document["deleted"]]
    action = "would be deleted" if document["dry_run"] else "deleted"
    notes = [
        f"{len(rows)} {action}, {decimal(document['bytes'])}",
        *(f"{entry['path']}: {entry['reason']}" for entry in document["skipped"]),
    ]
    return as_rich([TextTable(f"garbage in {document['folder']}", ("path", "bytes freed", "reason"), rows, notes, "lRl")])
