"""A run as its cards describe it: its complete artifacts under the names that the Hub shows, its policies, and where they come from.

Names are those of the field (`pairs-1`, `prompts-1`, `responses-1`), one data set configuration per stage and iteration. Every figure that
a card shows is read from a manifest.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, try_to_load_from_cache

from eva_stages.core.durable import write_whole
from eva_stages.core.errors import DamagedError
from eva_stages.core.kinds import KINDS, LETTERCRAFT
from eva_stages.core.ourfiles import RECIPE_COMMAND, read_json
from eva_stages.core.stage import Outside, Stage
from eva_stages.publishing.privacy import Privacy
from eva_stages.views.history import Artifact, History

OPEN = {"license": "apache-2.0"}
UNKNOWN = {"license": "unknown"}
LICENCE = "base_policy_licence.json"
"""In a run's folder: the licence that the base policy's own card states."""
EMBEDDED_NAMES = (LETTERCRAFT, "lettercraft-deep", "lettercraft-deep-creator", "microworld")
"""Names of the models and prompts that eva includes; "microworld" was the name in eva 0.1.0."""
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Base:
    """The policy that the run started from."""

    name: str
    hub_id: str | None
    digest: str
    """Its commit on the Hub, or the sha256 over its files."""
    licence: Mapping[str, str]
    """The card fields with its licence."""


@dataclass(frozen=True)
class Story:
    """A run as its cards describe it."""

    root: Path
    name: str
    namespace: str
    recipe: Mapping[str, Any]
    """The resolved recipe without what belongs to the machine."""
    artifacts: tuple[Artifact, ...]
    """Every complete artifact of the recipe, upstream first."""
    policies: Mapping[int, Artifact]
    """Trained policies by iteration."""
    base: Base
    prompts_licence: Mapping[str, str]
    creators: Mapping[int, Artifact] = field(default_factory=dict)
    """Trained creators by iteration: complete models, or adapters on a policy."""

    @property
    def dataset(self) -> str:
        return f"{self.namespace}/{self.name}"

    def model(self, iteration: int) -> str:
        return model_repository(self.dataset, iteration)

    @property
    def models(self) -> dict[str, Artifact]:
        """Trained policies and creators by their repositories."""
        creators = {model_repository(self.dataset, iteration, "creator-"): creator for iteration, creator in self.creators.items()}
        return {**{self.model(iteration): policy for iteration, policy in self.policies.items()}, **creators}

    def inputs(self, artifact: Artifact) -> list[str]:
        """The configurations whose rows an artifact was computed from."""
        folders = set(artifact.inputs.values())
        return [upstream.name for upstream in self.artifacts if upstream.planned_stage.folder in folders and upstream.rows is not None]

    def start(self, model: Artifact, name: str = "policy") -> tuple[str, Artifact] | None:
        """The model that a training started from, with its repository; None if no training of the run made it.

        Args:
            name: the input that it is: the policy, or the adapter on it.
        """
        folder = model.inputs.get(name)
        return next(((key, artifact) for key, artifact in self.models.items() if artifact.planned_stage.folder == folder), None)

    def adapted_model(self, model: Artifact) -> str | None:
        """The Hub id of the model that a trained adapter adapts; None if it is not on the Hub."""
        start = self.start(model)
        return start[0] if start else self.base_of(model).hub_id

    def base_of(self, model: Artifact) -> Base:
        """What a chain of trainings began with: the base policy, or the model of a creator that is a network of its own."""
        while start := self.start(model):
            model = start[1]
        if model.stage == "train":
            return self.base
        entry = model.outside_inputs.get("policy")
        if entry is None or str(entry["digest"]) == self.base.digest:
            return self.base
        name, digest = str(entry["artifact"]), str(entry["digest"])
        licence = OPEN if name in EMBEDDED_NAMES else stated_licence(name, digest)
        return Base(name, name if COMMIT.fullmatch(digest) else None, digest, licence)

    @property
    def seeds(self) -> str | None:
        """The configuration with the prompts as they were loaded."""
        return next((artifact.name for artifact in self.artifacts if artifact.stage == "prompts"), None)


def model_repository(dataset: str, iteration: int, kind: str = "") -> str:
    """The repository of a run's trained policy, or with the kind "creator-" of its trained creator.

    Args:
        dataset: the repository of the run's rows.
    """
    return f"{dataset}-{kind}iter{iteration}"


def story_of(history: History, namespace: str, privacy: Privacy) -> Story:
    """A run as its cards describe it.

    Raises:
        DamagedError: if its recipe is incomplete.
    """
    missing_sections = [name for name in ("policy", "prompts", "solver") if name not in history.recipe]
    if missing_sections:
        advice = RECIPE_COMMAND.format(root=history.root)
        raise DamagedError(f"{history.root / 'recipe.yaml'} is damaged: it has no section {', '.join(missing_sections)}", advice)
    artifacts = _named_artifacts(history)
    recipe = {name: value for name, value in history.recipe.items() if name != "publish"}
    recipe["runtime"] = {name: value for name, value in (recipe.get("runtime") or {}).items() if name != "engine"}
    return Story(
        root=history.root,
        name=history.name,
        namespace=namespace,
        recipe=privacy.settings(_pinned_recipe(recipe, _outside_digests(history))),
        artifacts=artifacts,
        policies=_models(artifacts, "train"),
        creators=_models(artifacts, "creator-train"),
        base=_base(history),
        prompts_licence=OPEN if (recipe.get("prompts") or {}).get("kind") in EMBEDDED_NAMES else UNKNOWN,
    )


def _models(artifacts: Iterable[Artifact], stage: str) -> dict[int, Artifact]:
    """The models that the trainings of one kind made, by iteration."""
    return {artifact.iteration: artifact for artifact in artifacts if artifact.stage == stage and artifact.content.name == "model"}


def _named_artifacts(history: History) -> tuple[Artifact, ...]:
    """The artifacts with the names of their configurations."""
    prompt_sets = {artifact.planned_stage.folder: iteration for iteration, artifact in history.prompt_sets.items()}
    artifacts_by_name: dict[str, Artifact] = {}
    for artifact in history.artifacts:
        number = prompt_sets.get(artifact.planned_stage.folder)
        published_name, holds = artifact.parsed_name.published_name, artifact.parsed_name.sentence
        if number is not None:
            published_name, holds = str(KINDS["mix"].published_name), str(KINDS["mix"].sentence)
        name = f"{published_name}-{artifact.iteration if number is None else number}"
        name = name if name not in artifacts_by_name else f"{name}-{artifact.planned_stage.fingerprint[:6]}"
        artifacts_by_name[name] = replace(artifact, name=name, holds=holds)
    return tuple(artifacts_by_name.values())


def _outside_digests(history: History) -> dict[str, str]:
    """The digests of inputs that eva did not build, by name."""
    entries = (entry for artifact in history.artifacts for entry in artifact.outside_inputs.values())
    return {str(entry["artifact"]): str(entry["digest"]) for entry in entries}


def _pinned_recipe(value: Any, digests: Mapping[str, str]) -> Any:
    """A recipe with every Hub model at the commit that was used."""
    if isinstance(value, dict):
        pinned_section = {key: _pinned_recipe(item, digests) for key, item in value.items()}
        commit = digests.get(str(pinned_section.get("model")), "")
        return {**pinned_section, "revision": commit} if "revision" in pinned_section and COMMIT.fullmatch(commit) else pinned_section
    return [_pinned_recipe(item, digests) for item in value] if isinstance(value, list) else value


def _base(history: History) -> Base:
    """The base policy: the input from outside that stages know as `policy`."""
    inputs = (artifact.outside_inputs.get("policy") for artifact in history.artifacts)
    entry = next((entry for entry in inputs if entry), None)
    model = str(history.recipe["policy"]["model"])
    digest = str(entry["digest"]) if entry else "unknown"
    if model in EMBEDDED_NAMES:
        return Base(LETTERCRAFT if model == "microworld" else model, None, digest, OPEN)
    path = history.root / LICENCE
    licence = read_json(path, dict) if path.is_file() else stated_licence(model, digest)
    hub_id = model if COMMIT.fullmatch(digest) else None
    return Base(hub_id or (str(entry["artifact"]) if entry else Path(model).name), hub_id, digest, licence)


def stated_licence(model: str, commit: str | None) -> dict[str, str]:
    """The licence that a checkpoint's own card states: of a folder, or of the Hub's cache."""
    folder = Path(model).expanduser()
    card: Any = folder / "README.md" if folder.is_dir() else try_to_load_from_cache(model, "README.md", revision=commit)
    if not isinstance(card, str | Path) or not Path(card).is_file():
        return UNKNOWN
    data = ModelCard.load(card, ignore_metadata_errors=True).data
    names = ("license", "license_name", "license_link")
    return {name: str(value) for name in names if (value := data.get(name))} or UNKNOWN


def record_licence(root: Path, model: str, stages: Iterable[Stage]) -> None:
    """Save the base policy's licence in a run's folder, as the policy may not be there when the run is pushed."""
    policies = (stage.inputs.get("policy") for stage in stages)
    base = next((policy for policy in policies if isinstance(policy, Outside)), None)
    if base is not None and model not in EMBEDDED_NAMES:
        write_whole(root / LICENCE, json.dumps(stated_licence(model, base.digest), indent=1) + "\n")
