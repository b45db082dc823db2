"""A run, finished or not, read from its folder: rows as data sets, scores as data frames."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from eva_stages.core.errors import ConfigError
from eva_stages.core.kinds import Role
from eva_stages.core.redaction import hide_in_data
from eva_stages.core.run_folder import Run
from eva_stages.core.terminal import notes_as_warnings
from eva_stages.views.history import Artifact, History, read_history

if TYPE_CHECKING:
    from datasets import Dataset
    from pandas import DataFrame


class OpenedRun:
    """A run. Every method reads the folder when it is called, so it also follows a run that continues.

    Attributes:
        folder: of the run, absolute.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    def __repr__(self) -> str:
        return f"OpenedRun({str(self.folder)!r})"

    @notes_as_warnings()
    def stages(self) -> "DataFrame":
        """The stages of the recipe, upstream first: label, iteration, role, state (done or to do), rows, seconds, content."""
        from pandas import DataFrame

        history = self._history()
        entries = []
        for stage in history.stages:
            artifact = history.artifact(stage)
            entries.append(
                {
                    "stage": stage.label,
                    "iteration": stage.iteration,
                    "role": str(stage.parsed_name.kind.role),
                    "state": "to do" if artifact is None else "done",
                    "rows": None if artifact is None else artifact.manifest["rows"],
                    "seconds": None if artifact is None else artifact.manifest["seconds"],
                    "content": stage.parsed_name.sentence if stage.parsed_name.kind.sentence else None,
                }
            )
        return DataFrame(entries).astype({"rows": "Int64"})

    @notes_as_warnings()
    def rows(self, stage: str) -> "Dataset":
        """The rows of a complete stage, memory-mapped.

        Args:
            stage: as in 1-evolve; the name alone if the stage is in one iteration only.

        Raises:
            ConfigError: if the stage is unknown, ambiguous or not complete, or has no rows.
            DamagedError: if its file cannot be read.
        """
        from eva_stages.api.datasets_of_rows import dataset_of

        artifact = self._artifact(stage)
        if artifact.rows is None:
            raise ConfigError([f"{artifact.planned_stage.label} has no rows; its files are in {artifact.content}"])
        return dataset_of(artifact.rows)

    @notes_as_warnings()
    def scores(self) -> "DataFrame":
        """A row for every benchmark and policy: benchmark, policy, judge, score, low, high, questions; null where it is not complete."""
        from pandas import DataFrame

        from eva_stages.views.run_scores import run_results

        columns = ["benchmark", "policy", "judge", "score", "low", "high", "questions"]
        return DataFrame(run_results(self.summary())["results"], columns=columns)

    @notes_as_warnings()
    def health(self) -> "DataFrame":
        """A row for every iteration: the figures of its health by name, and `warnings`, the sentences on figures outside their limits."""
        from pandas import DataFrame, Index

        entries = [(entry["iteration"], entry["health"]) for entry in self.summary()["iterations"] if entry["health"]]
        rows = [{**health["figures"], "warnings": health["warnings"]} for _, health in entries]
        return DataFrame(rows, index=Index([number for number, _ in entries], name="iteration"))

    @notes_as_warnings()
    def summary(self) -> dict[str, Any]:
        """Every figure of the run: the document that `eva run --json` ends with."""
        from eva_stages.views.run_summary import summary

        return _harmless(summary(self._history()))

    @notes_as_warnings()
    def status(self) -> dict[str, Any]:
        """How far every stage is, and why one failed: the document of `eva status --json`."""
        from eva_stages.views.run_status import Watch

        return _harmless(Watch(Run(self.folder)).document())

    @notes_as_warnings()
    def lineage(self, prompt_id: str, from_seed: bool = False) -> dict[str, Any]:
        """From the seed to a prompt: mutations, responses, rewards, pairs: the document of `eva lineage --json`.

        Args:
            from_seed: the complete tree below the prompt's seed instead.

        Raises:
            ConfigError: if the run has no such prompt, with similar ids.
        """
        from eva_stages.views.prompt_lineage import Lineage

        lookup = Lineage(self._history())
        return _harmless(lookup.tree(prompt_id) if from_seed else lookup.trace(prompt_id))

    @notes_as_warnings()
    def policy(self, iteration: int | None = None) -> Path:
        """The checkpoint folder of an iteration's policy; None: of the last complete iteration.

        Raises:
            ConfigError: if there is none.
        """
        policies = {artifact.iteration: artifact.content for artifact in self._history().artifacts if artifact.kind.role == Role.POLICY}
        number = max(policies, default=None) if iteration is None else iteration
        if number not in policies:
            wanted_policy = "complete policy" if number is None else f"policy of iteration {number}"
            raise ConfigError([f"iteration: there is no {wanted_policy} in {self.folder}; complete: {_list(policies)}"])
        return policies[number]

    def _history(self) -> History:
        return read_history(Run(self.folder))

    def _artifact(self, name: str) -> Artifact:
        history = self._history()
        stages = [stage for stage in history.stages if name in (stage.label, stage.name)]
        artifacts = [artifact for stage in stages if (artifact := history.artifact(stage)) is not None]
        if not stages:
            labels = _list(artifact.planned_stage.label for artifact in history.artifacts if artifact.rows)
            raise ConfigError([f"stage: there is no stage {name!r} in {self.folder}; those with rows: {labels}"])
        if len(stages) > 1:
            raise ConfigError([f"stage: {name!r} is in several iterations; give one of {_list(stage.label for stage in stages)}"])
        if not artifacts:
            raise ConfigError([f"stage: {stages[0].label} is not complete; run the recipe until {stages[0].label}"])
        return artifacts[0]


def _list(names: Any) -> str:
    return ", ".join(map(str, names)) or "none"


def _harmless(document: Any) -> dict[str, Any]:
    """A document without secrets."""
    harmless_document: dict[str, Any] = hide_in_data(document)
    return harmless_document
