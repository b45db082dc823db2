"""What no run needs: artifacts and unfinished work that no recipe of a run names, and what repairs put aside.

An artifact in a store is also needed while a run of another folder links it. What a process holds by a lock is left alone.
"""

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.filesize import decimal

from eva_stages.core.errors import DamagedError, LockedError
from eva_stages.core.manifests import MANIFEST
from eva_stages.core.planned_stages import PLAN, read_planned_stages
from eva_stages.core.run_folder import DAMAGED, PARTIAL, Run, attempt_record
from eva_stages.core.store import STORE, WORK, Store, recorded_store
from eva_stages.core.text_table import TextTable, as_rich
from eva_stages.core.variants import VARIANTS

UNNAMED = "no recipe of a run names it"
PUT_ASIDE = "put aside by a repair"


@dataclass(frozen=True)
class Garbage:
    """A folder or file that can be deleted."""

    path: Path
    reason: str
    owner: Run | Store
    bytes: int = 0
    """What its removal frees, after those listed before it."""


@dataclass(frozen=True)
class Skipped:
    """Something that was not examined or not deleted."""

    path: Path
    reason: str


def runs_in(folder: Path) -> list[Run]:
    """The runs below a folder, or the run that it is."""
    if (folder / "recipe.yaml").is_file():
        return [Run(folder)]
    return [Run(path.parent) for path in sorted(folder.glob("*/recipe.yaml"))]


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


def find_garbage(folder: Path) -> tuple[list[Garbage], list[Skipped]]:
    """What no run of a folder needs, largest last."""
    runs, garbage, skipped = runs_in(folder), list[Garbage](), list[Skipped]()
    named: set[str] = set()
    for run in runs:
        try:
            names = named_folders(run.root)
        except DamagedError as error:
            names = None
            skipped.append(Skipped(run.root, f"its artifacts are kept: {error}"))
        if names is None:  # nothing says what it needs
            names = {path.name for path in run.stages.glob("*")}
        named |= names
        if holder := run.holder():
            skipped.append(Skipped(run.root, f"in use by {holder}"))
            named |= {path.name for path in run.stages.glob("*")}
            continue
        unnamed = [path for path in sorted(run.stages.glob("*")) if path.name not in names]
        garbage += [Garbage(path, UNNAMED, run) for path in unnamed]
        garbage += [Garbage(path, PUT_ASIDE, run) for path in sorted((run.root / DAMAGED).glob("*"))]
        garbage += [Garbage(path, "left by a killed process", run) for path in [run.root / PARTIAL] if path.is_dir()]
        if not run.shares:
            garbage += [Garbage(path, UNNAMED, run) for path in _unnamed_work(run.store, names)]
    for store in stores_of(folder, runs):
        for path in sorted(store.stages.glob("*")):
            if path.name not in named and not _linked_elsewhere(path, [entry.path for entry in garbage]):
                garbage.append(Garbage(path, UNNAMED, store))
        garbage += [Garbage(path, UNNAMED, store) for path in _unnamed_work(store, named)]
    return list(_with_sizes(garbage)), skipped


def _unnamed_work(store: Store, named: set[str]) -> Iterator[Path]:
    """Unfinished work that neither a run of the folder names nor the run that it was made for."""
    for path in sorted(store.work.glob("*")):
        name = _stage_folder(path)
        if name in named and path.suffix not in (".ready", ".removed"):
            continue
        owner = attempt_record(path).get("run")
        try:
            names = named_folders(Path(owner)) if owner else None
        except DamagedError:
            continue
        if names is None or name not in names:
            yield path


def _stage_folder(path: Path) -> str:
    """The stage's folder that something in a store belongs to."""
    return path.name.removesuffix(".lock").removesuffix(".ready").removesuffix(".removed")


def _linked_elsewhere(artifact: Path, doomed: Sequence[Path]) -> bool:
    """Whether a run still links an artifact of a store when the doomed folders are gone."""
    manifest = artifact / MANIFEST
    if not manifest.is_file():
        return False
    links = sum((path / MANIFEST).is_file() and manifest.samefile(path / MANIFEST) for path in doomed)
    return manifest.stat().st_nlink - links > 1


def _with_sizes(garbage: Sequence[Garbage]) -> Iterator[Garbage]:
    """A file's bytes are freed when the last of its links goes."""
    removed: Counter[tuple[int, int]] = Counter()
    for entry in garbage:
        freed = 0
        files = [entry.path] if entry.path.is_file() else [path for path in entry.path.rglob("*") if path.is_file()]
        for stat in (path.stat() for path in files):
            removed[stat.st_dev, stat.st_ino] += 1
            freed += stat.st_size if removed[stat.st_dev, stat.st_ino] == stat.st_nlink else 0
        yield replace(entry, bytes=freed)


def delete_garbage(garbage: Sequence[Garbage]) -> tuple[list[Garbage], list[Skipped]]:
    """Delete what is not held by a process; returns what was deleted and what was not."""
    deleted, skipped = list[Garbage](), list[Skipped]()
    for entry in garbage:
        if (reason := _delete(entry)) is None:
            deleted.append(entry)
        else:
            skipped.append(Skipped(entry.path, reason))
    return deleted, skipped


def _delete(entry: Garbage) -> str | None:
    """Delete one entry; returns why not, if a process holds it."""
    if isinstance(entry.owner, Run):
        try:
            with entry.owner.lock():
                _remove(entry.path)
        except LockedError as error:
            return str(error)
        return None
    with entry.owner.lock(_stage_folder(entry.path), Path("eva gc"), None) as lock:
        if lock is None:
            return "a process computes it"
        _remove(entry.path)
    return None


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def garbage_document(folder: Path, garbage: Sequence[Garbage], skipped: Sequence[Skipped], dry_run: bool) -> dict[str, Any]:
    """What was deleted, or would be, and what was left alone."""
    return {
        "folder": str(folder),
        "dry_run": dry_run,
        "bytes": sum(entry.bytes for entry in garbage),
        "deleted": [{"path": str(entry.path), "bytes": entry.bytes, "reason": entry.reason} for entry in garbage],
        "skipped": [{"path": str(entry.path), "reason": entry.reason} for entry in skipped],
    }


def garbage_table(document: dict[str, Any]) -> Group:
    """The document for a terminal."""
    rows = [[entry["path"], decimal(entry["bytes"]), entry["reason"]] for entry in document["deleted"]]
    action = "would be deleted" if document["dry_run"] else "deleted"
    notes = [
        f"{len(rows)} {action}, {decimal(document['bytes'])}",
        *(f"{entry['path']}: {entry['reason']}" for entry in document["skipped"]),
    ]
    return as_rich([TextTable(f"what no run in {document['folder']} needs", ("path", "bytes freed", "reason"), rows, notes, "lRl")])
