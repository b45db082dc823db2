"""The repositories that a pull reads: their files fetched, compared with what was pushed, and in the form that they have in a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva_stages.core.errors import ConfigError, DataError
from eva_stages.core.fingerprint import file_digest
from eva_stages.core.manifests import MANIFEST, read_manifest, write_manifest
from eva_stages.core.named_functions import SOURCES
from eva_stages.publishing.card_scores import SCORES_CSV
from eva_stages.publishing.contents import ADAPTER_CONFIG, PUSH_NOTE, REPORT, adapter_config
from eva_stages.publishing.hub import MARK, Hub, Remote
from eva_stages.publishing.pulled_files import PulledFile, checked_paths
from eva_stages.publishing.repository import Repository
from eva_stages.publishing.run_files import RUN

ARRIVAL, FINAL_FORMS = ".pull", ".pull/finished"
"""In the folder of a pulled run: the files that are not in their places yet, and those of them that a push had changed."""
REPLACED_VALUES = "replaced_values"
PAGES = ("README.md", "recipe.yaml", REPORT, SCORES_CSV, MARK)
"""Files for the readers of a repository, which are in no run."""


@dataclass(frozen=True)
class Source:
    """A repository of the run at its newest commit."""

    repository: Repository
    remote: Remote
    run: str
    """Identity of the run that pushed it."""
    paths: Sequence[str]
    """Files that eva pushed."""
    hashes: Mapping[str, str]
    """Their sha256, as far as the push recorded it."""
    arrival: Path
    """Folder that its files are fetched into."""
    deleted_paths: Sequence[str]
    """Files that eva pushed and that the repository no longer has, without pages."""

    @property
    def name(self) -> str:
        return self.repository.name

    def manifest(self, folder: str = ".") -> dict[str, Any]:
        """A fetched manifest; one that is no manifest is an error."""
        return read_manifest(self.arrival / folder)


def read_source(hub: Hub, repository: Repository, root: Path) -> Source | None:
    """A repository; None if it does not exist.

    Raises:
        ConfigError: if eva did not push it.
        DataError: if files were deleted without which it is no run, or no model.
    """
    remote = hub.remote(repository)
    if remote is None:
        return None
    mark = hub.mark(repository, remote)
    if not mark:
        raise ConfigError([f"{repository.name} has no {MARK}: it was not pushed by `eva push`"])
    pushed_paths = checked_paths(repository.name, mark["files"])
    paths = [path for path in pushed_paths if path in remote.hashes]
    deleted_paths = [path for path in pushed_paths if path not in remote.hashes and path not in PAGES]
    if lost_paths := [path for path in deleted_paths if path == MANIFEST or path.startswith(f"{RUN}/")]:
        raise DataError(f"{repository.name} no longer has {', '.join(lost_paths)}, which was pushed; push the run again")
    return Source(repository, remote, mark["run"], paths, mark["sha256"], root / ARRIVAL / repository.name, deleted_paths)


def fetch_small(hub: Hub, source: Source) -> None:
    """Fetch what is not in large file storage, and the run's own files, without pages and sources of functions."""
    paths = [path for path in source.paths if path not in source.remote.large or path.startswith(f"{RUN}/")]
    fetch(hub, source, [path for path in paths if path not in PAGES and not path.startswith(f"{SOURCES}/")])


def fetch(hub: Hub, source: Source, paths: Sequence[str]) -> None:
    """Fetch files and compare them with what was pushed.

    Raises:
        DataError: with the first that is another.
    """
    if not paths:
        return
    hub.download(source.repository, paths, source.remote.commit, source.arrival)
    for path in paths:
        place = source.arrival / path
        if place.is_symlink() or not place.is_file() or source.arrival.resolve() not in place.resolve().parents:
            raise DataError(f"{source.name}: {path} is no plain file")
        expected = source.hashes.get(path, source.remote.hashes[path] if path in source.remote.large else None)
        if expected is not None and (digest := file_digest(place)) != expected:
            place.unlink()
            raise DataError(
                f"{source.name}: {path} is not what was pushed: its sha256 is {digest}, expected {expected}; push the run again"
            )


def final_hash(root: Path, source: Source, file: PulledFile) -> str:
    """sha256 of a file as it will be in the run. Manifests and adapters get the form that they have in a run."""
    if file.path in source.remote.large:
        pushed_hash, present_hash = source.hashes.get(file.path), source.remote.hashes[file.path]
        if pushed_hash not in (None, present_hash):
            raise DataError(f"{source.name}: {file.path} is not what was pushed: its sha256 is {present_hash}, not {pushed_hash}")
        return present_hash
    place, finished_place = source.arrival / file.path, root / FINAL_FORMS / file.target
    if file.is_manifest:
        finished_place.parent.mkdir(parents=True, exist_ok=True)
        manifest = read_manifest(place.parent)
        write_manifest(finished_place.parent, {name: value for name, value in manifest.items() if name not in (PUSH_NOTE, REPLACED_VALUES)})
    elif place.name == ADAPTER_CONFIG:
        finished_place.parent.mkdir(parents=True, exist_ok=True)
        finished_place.write_bytes(adapter_config(place, None))
    return file_digest(finished_place if finished_place.is_file() else place)
