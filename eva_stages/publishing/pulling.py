"""A pull brings a pushed run back into a folder, where every view of a run works on it.

Small files are fetched first. With the hashes that the Hub has of large files, they give the digest of every artifact, which is compared
with its manifest before anything large is fetched. Every file is compared with the hash that the push recorded in `eva.json` and renamed
into its place, manifests last: a stage is complete or missing at every moment, and the same pull resumes. What the Hub holds is data: names
outside a run's layout are refused, the sources of functions are not fetched, and nothing is executed.
"""

import json
import shutil
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva_stages.core.durable import write_whole, writing_to
from eva_stages.core.errors import ConfigError, DataError
from eva_stages.core.fingerprint import digest_of_files, file_digest
from eva_stages.core.named_functions import SOURCES
from eva_stages.core.ourfiles import read_json
from eva_stages.core.planned_stages import PLAN, PlannedStage, read_planned_stages
from eva_stages.core.run_folder import Run
from eva_stages.core.tables import FILE
from eva_stages.publishing.contents import PUSH_NOTE
from eva_stages.publishing.hub import Hub
from eva_stages.publishing.pull_sources import ARRIVAL, FINAL_FORMS, REPLACED_VALUES, Source, fetch, fetch_small, final_hash, read_source
from eva_stages.publishing.pulled_files import PulledFile, configurations, model_files_of, run_files_of, stage_files_of, stage_folder
from eva_stages.publishing.repository import Repository
from eva_stages.publishing.run_files import RUN
from eva_stages.publishing.story import model_repository

RECORD = "pulled.json"
"""In the folder of a pulled run: the record of its pulls."""
UNPUSHED_WORK = "unfinished stages, training checkpoints with optimiser states, caches and logs, and stages of other recipes of the folder"
MODEL_KINDS = {"train": "", "creator-train": "creator-"}


@dataclass(frozen=True)
class PullOutcome:
    """What a pull brought, and what it could not bring."""

    root: Path
    stages: int
    files: int
    size: int
    """Bytes of large files that were fetched now."""
    missing: tuple[str, ...]
    """Sentences on what is not there."""


def pull_run(name: str, root: Path, hub: Hub, report_line: Callable[[str], None]) -> PullOutcome:
    """Bring the run `NAMESPACE/RUN` into a folder, or go on with it.

    Raises:
        ConfigError: if there is no such run, or the folder has other content, which is left as it is.
        DataError: if a file is not the one that was pushed, or its name is none of a run.
        HubError: if the Hub keeps failing; the same pull resumes.
    """
    dataset = read_source(hub, Repository(name, "dataset", ()), root)
    if dataset is None:
        raise ConfigError([f"there is no data set {name} on the Hub, or the token (HF_TOKEN) has no access to it"])
    known_hashes = _known_hashes(root, name, dataset.run)
    with writing_to(root):
        root.mkdir(parents=True, exist_ok=True)
        with Run(root).lock():
            _record(root, name, dataset.run, known_hashes)
            return _pull(name, root, hub, dataset, known_hashes, report_line)


def _pull(
    name: str, root: Path, hub: Hub, dataset: Source, known_hashes: dict[str, list[str]], report_line: Callable[[str], None]
) -> PullOutcome:
    fetch_small(hub, dataset)
    files = {file.target: file for file in run_files_of(dataset.name, dataset.paths)}
    manifests: dict[str, dict[str, Any]] = {}
    for configuration in configurations(dataset.paths):
        manifest = dataset.manifest(configuration)
        manifests[stage_folder(dataset.name, manifest)] = manifest
        files |= {file.target: file for file in stage_files_of(dataset.name, configuration, dataset.paths, manifest)}
    sources, notes = {dataset.name: dataset}, []
    for repository, folder in _models(name, files.values(), manifests):
        model = read_source(hub, Repository(repository, "model", ()), root)
        if model is None or model.run != dataset.run:
            notes.append(f"models/{repository} is not there: `eva push` did not push the model, or it was deleted")
            continue
        fetch_small(hub, model)
        if stage_folder(model.name, model.manifest()) != folder:
            notes.append(f"models/{repository} holds another training than {folder}: push the run again")
            continue
        sources[model.name], manifests[folder] = model, model.manifest()
        files |= {file.target: file for file in model_files_of(model.name, model.paths, model.manifest())}
    for source in sources.values():
        if source.deleted_paths:
            names = ", ".join(source.deleted_paths)
            report_line(f"warning: {source.name} no longer has {names}, which was pushed; if stages are missing, push the run again")
    planned_folders = {stage.folder for stage in _planned_stages(dataset)}
    if planned_folders:  # a repository keeps the stages of recipes that were pushed before
        files = {target: file for target, file in files.items() if file.stage_folder in (None, *planned_folders)}
    hashes = {target: final_hash(root, sources[file.repository], file) for target, file in files.items()}
    complete_folders = {file.stage_folder for file in files.values() if file.is_manifest and file.path in sources[file.repository].hashes}
    notes += _artifact_notes(list(files.values()), hashes, manifests, complete_folders)
    new_files = _new_files(root, list(files.values()), hashes, known_hashes)
    large_files = [file for file in new_files if file.path in sources[file.repository].remote.large]
    size = sum(sources[file.repository].remote.sizes[file.path] for file in large_files)
    _check_space(root, size)
    report_line(f"{name}: {len(new_files)} of {len(files)} files are new; {size:,} bytes of large files to fetch")
    _record(root, name, dataset.run, {target: [*known_hashes.get(target, []), digest] for target, digest in hashes.items()})
    for source in sources.values():
        fetch(hub, source, [file.path for file in large_files if file.repository == source.name])
    for file in sorted(new_files, key=lambda file: file.is_manifest):
        _place(root, sources[file.repository], file)
    shutil.rmtree(root / ARRIVAL)
    if functions := [path for path in dataset.paths if path.startswith(f"{SOURCES}/")]:
        notes.append(f"{len(functions)} source files of functions are not fetched: they are in {SOURCES} of {dataset.name}")
    stages = sum(file.is_manifest for file in files.values())
    return PullOutcome(root, stages, len(new_files), size, (*notes, f"never pushed: {UNPUSHED_WORK}"))


def _models(name: str, files: Iterable[PulledFile], manifests: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The repositories of the run's complete trained models, with their stages' folders."""
    with_content = {file.stage_folder for file in files if file.content_name}
    return [
        (model_repository(name, manifest["iteration"], MODEL_KINDS[manifest["stage"]]), folder)
        for folder, manifest in manifests.items()
        if manifest["stage"] in MODEL_KINDS and folder not in with_content
    ]


def _planned_stages(dataset: Source) -> list[PlannedStage]:
    path = dataset.arrival / RUN / PLAN
    return read_planned_stages(path) if f"{RUN}/{PLAN}" in dataset.paths else []


def _artifact_notes(
    files: Sequence[PulledFile],
    hashes: Mapping[str, str],
    manifests: Mapping[str, Mapping[str, Any]],
    complete_folders: Container[str | None],
) -> list[str]:
    """Compare every artifact with its manifest; returns sentences about those that were not pushed as they are.

    Args:
        complete_folders: artifacts whose files the push recorded with their hashes; earlier versions did not push all files.

    Raises:
        DataError: with the first artifact that is not what its manifest says.
    """
    notes = []
    for folder in sorted({file.stage_folder for file in files if file.stage_folder}):
        manifest = manifests[folder]
        content = {file.content_name: hashes[file.target] for file in files if file.stage_folder == folder and file.content_name}
        push_note = manifest.get(PUSH_NOTE, {})
        missing_names = push_note.get("left_out", [])
        if names := push_note.get("changed") or ([FILE] if REPLACED_VALUES in manifest else []):
            notes.append(f"{folder}: private values were replaced in {', '.join(names)}")
        if missing_names:
            notes.append(f"{folder}: not pushed: {', '.join(missing_names)}")
        if names or missing_names or (not content and manifest["stage"] in MODEL_KINDS):
            continue
        if not content or digest_of_files(content) != manifest["digest"]:
            if folder in complete_folders:
                raise DataError(f"{folder} is not the artifact that its manifest describes: the digest is another; push the run again")
            notes.append(f"{folder}: pushed by an earlier version of eva, without all of its files")
    return notes


def _known_hashes(root: Path, name: str, run: str) -> dict[str, list[str]]:
    """The hashes that pulls of the same run gave each file of the folder.

    Raises:
        ConfigError: if the folder has other content.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return {}
    record = root / RECORD
    if not record.is_file() or record.is_symlink():
        raise ConfigError([f"{root} exists and is no pull of {name}; choose another folder with --to"])
    document = read_json(record, dict, f"delete {root} and pull again")
    if (document.get("from"), document.get("run")) != (name, run):
        raise ConfigError([f"{root} is a pull of another run, {document.get('from')}; choose another folder with --to"])
    known_hashes: dict[str, list[str]] = document["files"]
    return known_hashes


def _record(root: Path, name: str, run: str, hashes: Mapping[str, Sequence[str]]) -> None:
    write_whole(root / RECORD, json.dumps({"from": name, "run": run, "files": hashes}, indent=1) + "\n")


def _new_files(
    root: Path, files: Sequence[PulledFile], hashes: Mapping[str, str], known_hashes: Mapping[str, Sequence[str]]
) -> list[PulledFile]:
    """The files that are not in their places yet, or there as an earlier pull brought them.

    Raises:
        ConfigError: with the files that somebody changed since.
    """
    new_files: list[PulledFile] = []
    faults = []
    for file in files:
        place = root / file.target
        if any(parent.is_symlink() for parent in (place, *place.parents) if root in parent.parents):
            faults.append(f"{place} is a link, or below one; a pull writes plain files only")
        elif not place.exists():
            new_files.append(file)
        elif (digest := file_digest(place)) != hashes[file.target]:
            new_files.append(file)
            if digest not in known_hashes.get(file.target, []):
                faults.append(f"{place} is not as it was pulled; move it away, or choose another folder with --to")
    if faults:
        raise ConfigError(faults)
    return new_files


def _check_space(root: Path, size: int) -> None:
    free = shutil.disk_usage(root).free
    if size > free:
        raise ConfigError([f"{root}: {size:,} bytes are to be fetched, and {free:,} are free; choose another folder with --to"])


def _place(root: Path, source: Source, file: PulledFile) -> None:
    place, finished_place = root / file.target, root / FINAL_FORMS / file.target
    place.parent.mkdir(parents=True, exist_ok=True)
    (finished_place if finished_place.is_file() else source.arrival / file.path).replace(place)
