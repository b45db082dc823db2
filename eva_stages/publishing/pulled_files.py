"""Where the files of pushed repositories belong in a run's folder, and which of them belong there at all.

Only names of a run's own layout are accepted: no absolute or upward paths, no kinds of files that a run does not have.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from eva_stages.core.errors import DataError
from eva_stages.core.manifests import MANIFEST, PIPELINE
from eva_stages.core.planned_stages import FOLDER_DIGITS, stage_of_folder
from eva_stages.core.tables import FILE
from eva_stages.publishing.contents import CHECKPOINT_FILES, TEXT_FILES
from eva_stages.publishing.run_files import RUN

NAME = re.compile(r"[\w+=@-][\w.+=@-]*")
"""A part of a path: no `.`, no `..`, nothing hidden, no separator."""
STAGES = "stages"
RUN_SUFFIXES = (".yaml", ".json", ".jsonl", ".parquet")
MODEL_PAGES = ("README.md", "recipe.yaml", "eva.json")
"""Files of a model's repository that are no part of its artifact."""


@dataclass(frozen=True)
class PulledFile:
    """A file of a repository, and its place in the run's folder."""

    repository: str
    path: str
    target: str

    @property
    def stage_folder(self) -> str | None:
        """The artifact's folder that it belongs to; None for a file of the run itself."""
        parts = self.target.split("/")
        return parts[1] if parts[0] == STAGES else None

    @property
    def is_manifest(self) -> bool:
        return self.target == f"{STAGES}/{self.stage_folder}/{MANIFEST}"

    @property
    def content_name(self) -> str | None:
        """Its name within the artifact's content, which the digest covers; None for other files."""
        parts = self.target.split("/", 3)
        return parts[3] if self.stage_folder and len(parts) == 4 else None


def checked_paths(repository: str, paths: Iterable[str]) -> list[str]:
    """The names that a push recorded.

    Raises:
        DataError: if one of them leads elsewhere.
    """
    listed_paths = sorted(paths)
    for path in listed_paths:
        if not all(NAME.fullmatch(part) for part in path.split("/")):
            raise DataError(f"{repository} lists the file {path[:200]!r}, which is no place in a run; nothing was fetched")
    return listed_paths


def run_files_of(repository: str, paths: Iterable[str]) -> list[PulledFile]:
    """The files of the run's own folder."""
    own_paths = [path for path in paths if path.startswith(f"{RUN}/") and path.endswith(RUN_SUFFIXES)]
    return [PulledFile(repository, path, path.removeprefix(f"{RUN}/")) for path in own_paths]


def configurations(paths: Iterable[str]) -> list[str]:
    """The folders of a data set's repository that hold a stage's rows: those with a manifest."""
    return [path.removesuffix(f"/{MANIFEST}") for path in paths if path.endswith(f"/{MANIFEST}") and path.count("/") == 1]


def stage_files_of(repository: str, configuration: str, paths: Iterable[str], manifest: Mapping[str, Any]) -> list[PulledFile]:
    """The files of a stage with rows or scores, of its folder in the data set's repository."""
    folder, files = stage_folder(repository, manifest), []
    for path in paths:
        name = path.removeprefix(f"{configuration}/")
        if name == path or PurePosixPath(name).suffix not in (*TEXT_FILES, ".parquet", ".yaml"):
            continue
        if name in (MANIFEST, PIPELINE):
            files.append(PulledFile(repository, path, f"{STAGES}/{folder}/{name}"))
        elif name == FILE or PurePosixPath(name).suffix in TEXT_FILES:
            files.append(PulledFile(repository, path, f"{STAGES}/{folder}/data/{name}"))
    return files


def model_files_of(repository: str, paths: Iterable[str], manifest: Mapping[str, Any]) -> list[PulledFile]:
    """The files of a trained model."""
    folder, files = stage_folder(repository, manifest), []
    for path in paths:
        if path == MANIFEST:
            files.append(PulledFile(repository, path, f"{STAGES}/{folder}/{MANIFEST}"))
        elif path not in MODEL_PAGES and PurePosixPath(path).suffix in CHECKPOINT_FILES:
            files.append(PulledFile(repository, path, f"{STAGES}/{folder}/model/{path}"))
    return files


def stage_folder(repository: str, manifest: Mapping[str, Any]) -> str:
    """The name of the folder that a manifest belongs to.

    Raises:
        DataError: if it is no name of a stage's folder.
    """
    folder = f"{manifest['iteration']}-{manifest['stage']}-{manifest['fingerprint'][:FOLDER_DIGITS]}"
    try:
        return stage_of_folder(folder).folder
    except ValueError as error:
        raise DataError(f"{repository}: a manifest is of no stage of eva: {error}") from error
