"""A study, finished or not, read from its folder: contrasts and scores as data frames."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from eva_stages.api.opened_runs import OpenedRun
from eva_stages.core.errors import ConfigError
from eva_stages.core.redaction import hide_in_data
from eva_stages.core.study_record import read_study
from eva_stages.core.terminal import notes_as_warnings

if TYPE_CHECKING:
    from pandas import DataFrame

RUN_COLUMNS = ["arm", "seed", "state", "score", "generated_tokens", "cause"]


class OpenedStudy:
    """A study. Every method reads the folder when it is called.

    Attributes:
        folder: of the study, absolute.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    def __repr__(self) -> str:
        return f"OpenedStudy({str(self.folder)!r})"

    @notes_as_warnings()
    def document(self) -> dict[str, Any]:
        """Everything about the study: the document that `eva ablate --json` ends with.

        Raises:
            ConfigError: if complete runs have scores, but none of the study's measure.
        """
        from eva_stages.views.study_document import study_document

        document: dict[str, Any] = hide_in_data(study_document(self.folder))
        return document

    @notes_as_warnings()
    def contrasts(self) -> "DataFrame":
        """A row for every contrast: arms a and b, the scores, the difference with its interval, p values and the verdict.

        Figures are null unless both arms are complete for every seed. The differences by seed are in `document`.
        """
        from pandas import DataFrame

        entries = self.document()["contrasts"]
        plain_entries = [
            {name: value for name, value in entry.items() if not isinstance(value, list | dict) and name != "tokens_to_control"}
            for entry in entries
        ]
        return DataFrame(plain_entries)

    @notes_as_warnings()
    def scores(self) -> "DataFrame":
        """A row for every run: arm, seed, state, score, generated_tokens, cause of a failure. A run without a score has null."""
        from pandas import DataFrame

        return DataFrame([{name: run[name] for name in RUN_COLUMNS} for run in self.document()["runs"]], columns=RUN_COLUMNS)

    @notes_as_warnings()
    def run(self, arm: str, seed: int) -> OpenedRun:
        """The run of an arm with a seed.

        Raises:
            ConfigError: if the study has no such run, or it has not started.
        """
        study_runs = {(run.arm, run.seed): run.folder for run in read_study(self.folder).runs}
        folder = study_runs.get((arm, seed))
        if folder is None:
            names = ", ".join(f"{other_arm}/{other_seed}" for other_arm, other_seed in study_runs)
            raise ConfigError([f"run: the study has no run {arm}/{seed}; its runs: {names}"])
        if not (self.folder / folder / "recipe.yaml").is_file():
            raise ConfigError([f"run: {arm}/{seed} has not started; run the study"])
        return OpenedRun(self.folder / folder)
