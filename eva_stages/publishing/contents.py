"""Which files go into which repository: one data set repository per run, one model repository per trained policy and creator.

Row files and weights are pushed unchanged, so that their digests can be checked against the manifests. Of a file with private values a
copy without them is pushed; the pushed manifest names these files, and those that are not pushed (`PUSH_NOTE`). Only known kinds of files
of a checkpoint are pushed: safetensors, tokenizer, configuration, training log. A LoRA adapter that is merged into the weights is in the
folder `adapter` of their repository: at the root, transformers would load it on top of the weights that contain it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq
import yaml

from eva_stages.core.decoding import decode_json
from eva_stages.core.errors import DamagedError
from eva_stages.core.fingerprint import tree_digest
from eva_stages.core.manifests import PIPELINE
from eva_stages.core.named_functions import SOURCES
from eva_stages.core.ourfiles import parquet_errors, read_content, read_yaml, rebuilt
from eva_stages.core.tables import FILE, write_rows
from eva_stages.models.weights import ADAPTER
from eva_stages.publishing.card_scores import score_files
from eva_stages.publishing.cards import dataset_card, model_card
from eva_stages.publishing.privacy import Privacy
from eva_stages.publishing.repository import File, Repository, json_bytes
from eva_stages.publishing.run_files import run_files
from eva_stages.publishing.story import Story
from eva_stages.views.history import Artifact

REPORT = "report.html"
PUSH_NOTE = "pushed"
"""Field of a pushed manifest with the names of the artifact's files that were changed (`changed`) or are not pushed (`left_out`)."""
TEXT_FILES = {".json", ".jsonl", ".csv"}
"""Files of artifacts beside their rows, such as scores and judgments in the official formats."""
ADAPTER_CONFIG = "adapter_config.json"
CHECKPOINT_FILES = {".safetensors", ".json", ".jinja", ".model", ".txt"}
AS_IT_IS = {"tokenizer.json", "vocab.json", "merges.txt", "vocab.txt", "added_tokens.json", "special_tokens_map.json"}
"""Files of tokens: strings in them that look like paths are tokens."""


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
        files += run_files(story.root, privacy)
        files.append(File("recipe.yaml", _recipe(story)))
        files += [File(path, content) for path, content in score_files(story).items()]
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
    files, changed_names, left_out_names = [], [], []
    manifest_path = f"{artifact.name}/manifest.json"
    source = f"{artifact.folder.name}/{FILE}"
    is_data = artifact.content.name == "data"  # models have repositories of their own
    if artifact.rows is None and is_data and manifest_path not in pushed_files:
        _check(artifact)
    if artifact.rows is not None:
        path = f"{artifact.name}/{FILE}"
        rows, replaced_values = artifact.rows, 0
        if pushed_files.get(path, {}).get("source") != source:  # else it was checked when it was pushed
            _check(artifact)
            rows, replaced_values = _clean_rows(artifact.rows, scratch / artifact.name, privacy)
        files.append(File(path, rows, None if replaced_values else source))
        if replaced_values:
            manifest["replaced_values"] = replaced_values
            changed_names.append(FILE)
    for file in sorted(path for path in artifact.content.rglob("*") if is_data and path.is_file() and path != artifact.rows):
        name = file.relative_to(artifact.content).as_posix()
        if file.suffix not in TEXT_FILES:
            left_out_names.append(name)
            continue
        cleaned_content = _clean_json(file, privacy) if file.suffix == ".json" else _clean_text(file, privacy)
        files.append(File(f"{artifact.name}/{name}", file if cleaned_content is None else cleaned_content))
        changed_names += [] if cleaned_content is None else [name]
    files.append(File(manifest_path, _manifest_bytes(manifest, changed_names, left_out_names)))
    pipeline = artifact.folder / PIPELINE
    if pipeline.is_file():
        pipeline_data = rebuilt(lambda: read_yaml(pipeline), None, "it is not pushed")
        if pipeline_data is not None:
            pipeline_text = yaml.safe_dump(privacy.settings(pipeline_data), sort_keys=False, allow_unicode=True)
            files.append(File(f"{artifact.name}/{PIPELINE}", pipeline_text.encode()))
    return files


def _manifest_bytes(manifest: dict[str, Any], changed_names: Sequence[str], left_out_names: Sequence[str]) -> bytes:
    names = {name: list(value) for name, value in (("changed", changed_names), ("left_out", left_out_names)) if value}
    return json_bytes({**manifest, PUSH_NOTE: names} if names else manifest)


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
    files, changed_names = [], []
    paths = checkpoint_files(model.content)
    for path in paths:
        name = path.relative_to(model.content).as_posix()
        if path.name == ADAPTER_CONFIG:
            files.append(File(name, adapter_config(path, story.adapted_model(model))))
            changed_names += [] if adapter_config(path, None) == read_content(path) else [name]
            continue
        text = path.suffix == ".json" and path.name not in AS_IT_IS and not path.name.endswith(".index.json")
        cleaned_content = _clean_json(path, privacy) if text else None
        files.append(File(name, path, f"{model.folder.name}/{name}") if cleaned_content is None else File(name, cleaned_content))
        changed_names += [] if cleaned_content is None else [name]
    left_out_names = sorted(path.relative_to(model.content).as_posix() for path in {*model.content.rglob("*")} - {*paths} if path.is_file())
    files.append(File("manifest.json", _manifest_bytes(privacy.settings(dict(model.manifest)), changed_names, left_out_names)))
    files.append(File("recipe.yaml", _recipe(story)))
    files.append(File("README.md", privacy.text(model_card(story, key)).encode()))
    return Repository(key, "model", tuple(files))


def adapter_config(path: Path, base: str | None) -> bytes:
    """peft's configuration of an adapter with the Hub id of the model that it adapts, which the loaders look for there.

    Without one, these are the bytes that a training writes (`write_canonical_config`).
    """
    config: Any = decode_json(read_content(path))
    return (json.dumps({**config, "base_model_name_or_path": base}, indent=2, sort_keys=True) + "\n").encode()


def checkpoint_files(folder: Path) -> list[Path]:
    """The files of a checkpoint that are published: those of known kinds, the adapter's beside the merged weights included."""
    return sorted(path for pattern in ("*", f"{ADAPTER}/*") for path in folder.glob(pattern) if path.suffix in CHECKPOINT_FILES)


def _clean_json(path: Path, privacy: Privacy) -> bytes | None:
    """A JSON file without private values; None if it holds none."""
    data: Any = decode_json(read_content(path))
    cleaned_data = privacy.settings(data)
    return None if cleaned_data == data else json_bytes(cleaned_data)


def _clean_text(path: Path, privacy: Privacy) -> bytes | None:
    """A text file without private values; None if it holds none."""
    text = read_content(path).decode(errors="replace")
    cleaned_text = privacy.text(text)
    return None if cleaned_text == text else cleaned_text.encode()


def _check(artifact: Artifact) -> None:
    if tree_digest(artifact.content) != artifact.manifest["digest"]:
        raise DamagedError(f"{artifact.folder} has changed since it was built: its digest does not match the manifest; it is not pushed")


def _recipe(story: Story) -> bytes:
    return yaml.safe_dump(dict(story.recipe), sort_keys=False, allow_unicode=True).encode()
