"""What a run has made, read from its folder alone: no recipe is resolved, no model is looked up, nothing is hashed.

So lineage and reports are quick, need no network and work on a copy of the run on another machine. Which artifacts belong together
stands in the run's own list of stages; a finished artifact of an earlier recipe in the same folder is left out.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from eva_stages.core.manifests import read_manifest
from eva_stages.core.run_folder import Run
from eva_stages.core.tables import count_rows
from eva_stages.publishing.artifacts import Artifact

MAKERS = ("mix", "subset")
"""Stages whose output is a prompt set even before anything has used it."""
SEEDS = ("decontaminate", "prompts")


@dataclass(frozen=True)
class History:
    """The finished artifacts of a run's recipe, upstream first."""

    root: Path
    artifacts: tuple[Artifact, ...]

    @cached_property
    def _by_label(self) -> dict[tuple[str, int], Artifact]:
        return {(artifact.stage, artifact.iteration): artifact for artifact in self.artifacts}

    @cached_property
    def _by_folder(self) -> dict[str, Artifact]:
        return {artifact.folder.name: artifact for artifact in self.artifacts}

    @property
    def name(self) -> str:
        return self.root.resolve().name

    def one(self, stage: str, iteration: int) -> Artifact | None:
        return self._by_label.get((stage, iteration))

    def every(self, stage: str) -> list[Artifact]:
        """The stage's artifacts, by iteration."""
        return sorted((one for one in self.artifacts if one.stage == stage), key=lambda one: one.iteration)

    def used(self, artifact: Artifact, name: str) -> Artifact | None:
        """The artifact that another one was made from, by the name it has there; None if it came from outside."""
        made_from = artifact.manifest["inputs"].get(name)
        return None if made_from is None else self._by_folder.get(made_from["artifact"])

    @cached_property
    def iterations(self) -> list[int]:
        """Iterations that have finished stages, ascending."""
        return sorted({artifact.iteration for artifact in self.artifacts})

    @cached_property
    def prompt_sets(self) -> dict[int, Artifact]:
        """X_t by t, for those that are done: what the policy of iteration t was trained on, or will be."""
        found = {}
        for iteration in self.iterations:
            users = [user for name in ("respond", "train") if (user := self.one(name, iteration))]
            read = [one for user in users if (one := self.used(user, "prompts"))]
            made = next(iter(read), None) or next((one for name in self._makers(iteration) if (one := self.one(name, iteration))), None)
            if made is not None:
                found[iteration] = made
        return found

    def _makers(self, iteration: int) -> tuple[str, ...]:
        """In an iteration that evolves, only what is mixed is a prompt set; elsewhere the loaded prompts are."""
        return MAKERS if self.one("evolve", iteration) or self.one("select", iteration) else (*MAKERS, *SEEDS)

    def size(self, artifact: Artifact) -> int:
        return 0 if artifact.rows is None else count_rows(artifact.rows.parent)


def read_history(run: Run) -> History:
    """The history of a run."""
    found = []
    for folder in run.line():
        manifest = read_manifest(folder)
        stage, iteration = str(manifest["stage"]), int(manifest["iteration"])
        found.append(Artifact(f"{stage}-{iteration}", stage, iteration, folder, manifest))
    return History(run.root, tuple(found))
