"""The read model of a run, from its folder alone: no recipe is resolved, no model is located, no input is hashed.

Everything that shows a run reads this, so it works from any directory, on a copy of the run, after the inputs were moved or deleted, and
while the run continues. `stages.json` lists the stages of the recipe as it was last run; artifacts of other recipes in the same folder are
left out. Runs of eva 0.1.0 list folders only: the rest is read from the manifests and from the text of the recipe.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from eva_stages.core.config.health_config import Health
from eva_stages.core.errors import DamagedError
from eva_stages.core.health_signs import checks
from eva_stages.core.kinds import Kind, StageName
from eva_stages.core.manifests import content, read_manifest
from eva_stages.core.ourfiles import RECIPE_COMMAND, read_yaml
from eva_stages.core.planned_stages import FOLDER_DIGITS, PlannedStage
from eva_stages.core.run_folder import Run
from eva_stages.core.study_record import STUDY_FILE
from eva_stages.core.tables import FILE, count_rows

TOKENS = ("input_tokens", "output_tokens")
COST = "cost_usd"
MIXED_SETS = ("mix", "subset")
"""Stages whose output is a prompt set even before anything has used it."""
SEED_SETS = ("decontaminate", "prompts")


@dataclass(frozen=True)
class Artifact:
    """A complete stage."""

    planned_stage: PlannedStage
    folder: Path
    manifest: Mapping[str, Any]
    name: str = ""
    """Its configuration in the data set repository (pairs-1); empty until a story sets it."""
    holds: str = ""
    """A description of its rows in one line."""

    @property
    def stage(self) -> str:
        return self.planned_stage.name

    @property
    def iteration(self) -> int:
        return self.planned_stage.iteration

    @property
    def parsed_name(self) -> StageName:
        return self.planned_stage.parsed_name

    @property
    def kind(self) -> Kind:
        return self.parsed_name.kind

    @property
    def policy(self) -> str:
        """The policy that an evaluation's stage is about."""
        return self.parsed_name.policy(self.iteration)

    @property
    def content(self) -> Path:
        return content(self.folder)

    @property
    def rows(self) -> Path | None:
        """The parquet file with its rows, if it has rows."""
        path = self.content / FILE
        return path if path.is_file() else None

    @property
    def counts(self) -> dict[str, float]:
        """The stage's counts without tokens and money."""
        return {name: count for name, count in self.manifest["counts"].items() if name not in (*TOKENS, COST)}

    @property
    def inputs(self) -> dict[str, str]:
        """The folders of its inputs, or the names of inputs that eva did not build."""
        return {name: str(entry["artifact"]) for name, entry in self.manifest["inputs"].items() if "artifact" in entry}

    @property
    def outside_inputs(self) -> dict[str, Mapping[str, Any]]:
        """What the manifest records of the inputs that no stage built."""
        inputs = self.manifest["inputs"].items()
        return {name: entry for name, entry in inputs if not entry["artifact"].endswith(f"-{entry['fingerprint'][:FOLDER_DIGITS]}")}

    @property
    def warnings(self) -> list[str]:
        """Sentences on the figures that are beyond the recipe's limits."""
        figures = self.manifest.get("figures") or {}
        return [sentence for check in self.planned_stage.checks if (sentence := check.violation(figures))]


@dataclass(frozen=True)
class History:
    """The stages of a run's recipe and the artifacts of those that are complete, upstream first."""

    root: Path
    stages: Sequence[PlannedStage]
    artifacts: tuple[Artifact, ...]

    @cached_property
    def _by_label(self) -> dict[tuple[str, int], Artifact]:
        return {(artifact.stage, artifact.iteration): artifact for artifact in self.artifacts}

    @cached_property
    def _by_folder(self) -> dict[str, Artifact]:
        return {artifact.planned_stage.folder: artifact for artifact in self.artifacts}

    @cached_property
    def _planned_by_label(self) -> dict[tuple[str, int], PlannedStage]:
        return {(stage.name, stage.iteration): stage for stage in self.stages}

    @property
    def name(self) -> str:
        """The name of its folder; in a study, which has a folder per arm and seed, as in metrics/uniform/42."""
        root = self.root.resolve()
        is_in_study = (root.parents[min(1, len(root.parents) - 1)] / STUDY_FILE).is_file()
        return "/".join(root.parts[-3:]) if is_in_study else root.name

    @cached_property
    def recipe(self) -> Mapping[str, Any]:
        """The recipe's text as data; fields of earlier versions may be in it."""
        return read_recipe(self.root)

    @property
    def recipe_name(self) -> str:
        return str(self.recipe.get("name", self.name))

    @property
    def evaluation_only(self) -> bool:
        """Whether the recipe trains nothing."""
        return bool((self.recipe.get("evaluation") or {}).get("only", False))

    @property
    def is_online(self) -> bool:
        """Whether prompts evolve during training, so that an iteration is an interval of it."""
        return self.recipe.get("mode") == "online"

    def find(self, stage: str, iteration: int) -> Artifact | None:
        return self._by_label.get((stage, iteration))

    def every(self, stage: str) -> list[Artifact]:
        """The stage's artifacts, by iteration."""
        return sorted((artifact for artifact in self.artifacts if artifact.stage == stage), key=lambda artifact: artifact.iteration)

    def of_kind(self, kind: Kind) -> list[Artifact]:
        """The artifacts of a kind, upstream first."""
        return [artifact for artifact in self.artifacts if artifact.kind == kind]

    def find_planned(self, stage: str, iteration: int) -> PlannedStage | None:
        return self._planned_by_label.get((stage, iteration))

    def artifact(self, stage: PlannedStage) -> Artifact | None:
        return self.artifact_in(stage.folder)

    def artifact_in(self, folder: str) -> Artifact | None:
        """The artifact in the folder of that name."""
        return self._by_folder.get(folder)

    def input_artifact(self, artifact: Artifact, name: str) -> Artifact | None:
        """The artifact that is the input `name` of another artifact; None if eva did not build the input."""
        return self.artifact_in(artifact.inputs.get(name, ""))

    @cached_property
    def iterations(self) -> list[int]:
        """Iterations that have complete stages, ascending."""
        return sorted({artifact.iteration for artifact in self.artifacts})

    @cached_property
    def planned_iterations(self) -> list[int]:
        return sorted({stage.iteration for stage in self.stages})

    @cached_property
    def prompt_sets(self) -> dict[int, Artifact]:
        """X_t by t, for those that are complete: what the policy of iteration t was trained on, or will be."""
        if self.is_online:  # the set is known after the training, which draws it
            return {artifact.iteration: artifact for artifact in self.every("mix")}
        sets = {}
        for iteration in self.planned_iterations:
            users = [user for name in ("respond", "train") if (user := self.find_planned(name, iteration))]
            used_sets = [artifact for user in users if (artifact := self.artifact_in(user.inputs.get("prompts", "")))]
            builders = (artifact for name in self._builders(iteration) if (artifact := self.find(name, iteration)))
            if prompt_set := next(iter(used_sets), None) or next(builders, None):
                sets[iteration] = prompt_set
        return sets

    def _builders(self, iteration: int) -> tuple[str, ...]:
        """Stages that build the prompt set: mixing in an iteration that evolves, loading elsewhere."""
        return MIXED_SETS if self.find("evolve", iteration) or self.find("select", iteration) else (*MIXED_SETS, *SEED_SETS)

    def size(self, artifact: Artifact) -> int:
        return 0 if artifact.rows is None else count_rows(artifact.rows.parent)


def read_history(run: Run, skip_damaged: bool = False) -> History:
    """The history of a run, of the artifacts in its own folder.

    Args:
        skip_damaged: a stage with a damaged manifest counts as not complete.

    Raises:
        DamagedError: if a manifest cannot be read.
    """
    stages, artifacts = [], []
    for planned_stage in run.planned_stages():
        folder = run.stages / planned_stage.folder
        manifest = _manifest(folder, skip_damaged)
        stage = planned_stage if planned_stage.is_described else _from_manifest(planned_stage, manifest, run.root)
        stages.append(stage)
        if manifest is not None:
            artifacts.append(Artifact(stage, folder, manifest))
    return History(run.root, stages, tuple(artifacts))


def read_recipe(root: Path) -> dict[str, Any]:
    """The text of a run's recipe as data; empty where there is none.

    Raises:
        DamagedError: if it cannot be read.
    """
    path = root / "recipe.yaml"
    recipe: dict[str, Any] = read_yaml(path, RECIPE_COMMAND.format(root=root)) if path.is_file() else {}
    return recipe


def _manifest(folder: Path, skip_damaged: bool) -> dict[str, Any] | None:
    """The manifest of an artifact; None where the stage is not complete.

    Raises:
        DamagedError: if it cannot be read: the stage would silently be missing from what is shown or pushed.
    """
    path = folder / "manifest.json"
    try:
        return read_manifest(folder) if path.is_file() else None
    except DamagedError:
        if path.is_file() and not skip_damaged:
            raise
        return None  # moved away just now by a repair


def _from_manifest(stage: PlannedStage, manifest: Mapping[str, Any] | None, root: Path) -> PlannedStage:
    """A stage of eva 0.1.0, of which only the folder is recorded."""
    limits = checks(Health.model_validate(read_recipe(root).get("health") or {})) if stage.name == "health" else ()
    if manifest is None:
        return replace(stage, checks=limits)
    inputs = {name: str(entry["artifact"]) for name, entry in manifest["inputs"].items()}
    return replace(stage, fingerprint=str(manifest["fingerprint"]), inputs=inputs, checks=limits)
