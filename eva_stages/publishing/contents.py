"""Which files go into which repository: one data set repository per run, one model repository per trained policy and creator.

Row files and weights are pushed unchanged, so that their digests can be checked against the manifests. Of a row file with private
values a copy without them is pushed, and its manifest has the number of replaced values. Only known kinds of files of a checkpoint are
pushed: safetensors, tokenizer, configuration, training log.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq
import yaml

from eva_stages.core.decoding import decode_json
from eva_stages.core.errors import DamagedError
from eva_stages.core.fingerprint import file_digest, tree_digest
from eva_stages.core.manifests import PIPELINE
from eva_stages.core.named_functions import SOURCES
from eva_stages.core.ourfiles import parquet_errors, read_content, read_yaml, rebuilt
from eva_stages.core.tables import write_rows
from eva_stages.models.weights import ADAPTER
from eva_stages.publishing.cards import dataset_card, model_card
from eva_stages.publishing.privacy import Privacy
from eva_stages.publishing.story import Story
from eva_stages.views.history import Artifact

REPORT = "report.html"
CHECKPOINT_FILES = {".safetensors", ".json", ".jinja", ".model", ".txt"}
AS_IT_IS = {"tokenizer.json", "vocab.json", "merges.txt", "vocab.txt", "added_tokens.json", "special_tokens_map.json"}
"""Files of tokens: strings in them that look like paths are tokens."""


@dataclass(frozen=True)
class File:
    """A file of a repository."""

    path: str
    content: Path | bytes
    source: str | None = None
    """The complete artifact's file that this is, unchanged; it never changes, so its hash can be reused."""

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


@dataclass(frozen=True)
class Repository:
    """A repository as it should be after a push."""

    id: str
    kind: Literal["dataset", "model"]
    files: tuple[File, ...]

    @property
    def name(self) -> str:
        return f"{self.kind}s/{self.id}"


@dataclass(frozen=True)
class Selection:
    """What part of a run a push is about."""

    part: Literal["datasets", "models", "report"] | None = None
    iteration: int | None = None

    def takes(self, artifact: Artifact) -> bool:
        return self.iteration is None or artifact.iteration == self.iteration


def repositories(
    story: Story, selection: Selection, report: Path, pushed_files: dict[str, dict[str, Any]], privacy: Privacy, scratch: Path
) -> list[Repository]:
    """Every repository that the selection concerns, with the files to be in it.

    Args:
        report: where the run's report is, if there is one.
        pushed_files: what earlier pushes recorded: repository name to path to {"sha256", "source"}.
        scratch: folder for copies of row files that need cleaning.
    """
    repository_list = []
    if selection.part != "models":
        repository_list.append(_dataset(story, selection, report, pushed_files.get(f"datasets/{story.dataset}", {}), privacy, scratch))
    if selection.part in (None, "models"):
        repository_list += [
            _model(story, key, model, pushed_files.get(f"models/{key}", {}), privacy)
            for key, model in story.models.items()
            if selection.takes(model)
        ]
    return [repository for repository in repository_list if repository.files]


def _dataset(story: Story, selection: Selection, report: Path, pushed_files: dict[str, Any], privacy: Privacy, scratch: Path) -> Repository:
    files: list[File] = []
    if selection.part != "report":
        selected_artifacts = [artifact for artifact in story.artifacts if selection.takes(artifact)]
        for artifact in selected_artifacts:
            files += _stage_files(artifact, pushed_files, privacy, scratch)
        listed_artifacts = [
            artifact for artifact in story.artifacts if artifact in selected_artifacts or f"{artifact.name}/rows.parquet" in pushed_files
        ]
        files += _function_files(story.root, selected_artifacts, privacy)
        files.append(File("recipe.yaml", _recipe(story)))
        files.append(File("README.md", privacy.text(dataset_card(story, listed_artifacts)).encode()))
    if report.is_file():
        files.append(File(REPORT, privacy.text(report.read_text(encoding="utf-8")).encode()))
    return Repository(story.dataset, "dataset", tuple(files))


def _function_files(root: Path, artifacts: Sequence[Artifact], privacy: Privacy) -> list[File]:
    """The sources of the functions that artifacts were computed with, whose digests are in their manifests."""
    works = "".join(json.dumps(artifact.manifest.get("work")) for artifact in artifacts)
    folders = [folder for folder in sorted((root / SOURCES).glob("*")) if folder.name in works]
    return [
        File(f"{SOURCES}/{folder.name}/{path.relative_to(folder).as_posix()}", privacy.text(path.read_text(encoding="utf-8")).encode())
        for folder in folders
        for path in sorted(folder.rglob("*.py"))
    ]


def _stage_files(artifact: Artifact, pushed_files: dict[str, Any], privacy: Privacy, scratch: Path) -> list[File]:
    manifest = privacy.settings(dict(artifact.manifest))
    files = []
    if artifact.rows is not None:
        path = f"{artifact.name}/rows.parquet"
        source = f"{artifact.folder.name}/{artifact.rows.name}"
        rows, replaced_values = artifact.rows, 0
        if pushed_files.get(path, {}).get("source") != source:  # else it was checked when it was pushed
            _check(artifact)
            rows, replaced_values = _clean_rows(artifact.rows, scratch / artifact.name, privacy)
        files.append(File(path, rows, None if replaced_values else source))
        if replaced_values:
            manifest["replaced_values"] = replaced_values
    files.append(File(f"{artifact.name}/manifest.json", _json(manifest)))
    pipeline = artifact.folder / PIPELINE
    if pipeline.is_file():
        pipeline_data = rebuilt(lambda: read_yaml(pipeline), None, "it is not pushed")
        if pipeline_data is not None:
            pipeline_text = yaml.safe_dump(privacy.settings(pipeline_data), sort_keys=False, allow_unicode=True)
            files.append(File(f"{artifact.name}/{PIPELINE}", pipeline_text.encode()))
    return files


def _clean_rows(rows: Path, folder: Path, privacy: Privacy) -> tuple[Path, int]:
    """The row file, or a copy of it without private values; and how many of them there were."""
    with parquet_errors(rows):
        file = pq.ParquetFile(rows)
        replaced_values = sum(privacy.table(file.read_row_group(group))[1] for group in range(file.num_row_groups))
        if not replaced_values:
            return rows, 0
        write_rows((privacy.table(file.read_row_group(group))[0] for group in range(file.num_row_groups)), file.schema_arrow, folder)
        return folder / rows.name, replaced_values


def _model(story: Story, key: str, model: Artifact, pushed_files: dict[str, Any], privacy: Privacy) -> Repository:
    if model.folder.name not in {str(entry["source"]).partition("/")[0] for entry in pushed_files.values()}:
        _check(model)
    files = []
    for path in checkpoint_files(model.content):
        name = path.relative_to(model.content).as_posix()
        text = path.suffix == ".json" and path.name not in AS_IT_IS and not path.name.endswith(".index.json")
        cleaned_content = _clean_json(path, privacy) if text else None
        files.append(File(name, path, f"{model.folder.name}/{name}") if cleaned_content is None else File(name, cleaned_content))
    files.append(File("manifest.json", _json(privacy.settings(dict(model.manifest)))))
    files.append(File("recipe.yaml", _recipe(story)))
    files.append(File("README.md", privacy.text(model_card(story, key)).encode()))
    return Repository(key, "model", tuple(files))


def checkpoint_files(folder: Path) -> list[Path]:
    """The files of a checkpoint that are published: those of known kinds, the adapter's beside the merged weights included."""
    return sorted(path for pattern in ("*", f"{ADAPTER}/*") for path in folder.glob(pattern) if path.suffix in CHECKPOINT_FILES)


def _clean_json(path: Path, privacy: Privacy) -> bytes | None:
    """A JSON file without private values; None if it holds none."""
    data: Any = decode_json(read_content(path))
    cleaned_data = privacy.settings(data)
    return None if cleaned_data == data else _json(cleaned_data)


def _check(artifact: Artifact) -> None:
    if tree_digest(artifact.content) != artifact.manifest["digest"]:
        raise DamagedError(f"{artifact.folder} has changed since it was built: its digest does not match the manifest; it is not pushed")


def _recipe(story: Story) -> bytes:
    return yaml.safe_dump(dict(story.recipe), sort_keys=False, allow_unicode=True).encode()


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def sha256(file: File, pushed_files: dict[str, Any]) -> str:
    """The sha256 of a file's bytes, from memory where it cannot have changed."""
    entry = pushed_files.get(file.path, {})
    if file.source is not None and entry.get("source") == file.source:
        return str(entry["sha256"])
    return file_digest(file.content) if isinstance(file.content, Path) else hashlib.sha256(file.content).hexdigest()
