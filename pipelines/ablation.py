"""A study as runs: every arm with every seed, in the order in which they are started."""

from collections.abc import Mapping
from dataclasses import dataclass

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.study_config import Study
from eva_stages.core.resolved import Resolved
from eva_stages.core.rounds import Iteration
from pipelines.iteration import iterations


@dataclass(frozen=True)
class ArmRun:
    """One run of a study."""

    arm: str
    seed: int
    recipe: Recipe
    """With the seed; its iterations are those that a run has at most."""
    resolved: Resolved

    @property
    def label(self) -> str:
        """As the run's folder below the study's."""
        return f"{self.arm}/{self.seed}"

    def rounds(self, count: int) -> list[Iteration]:
        """The base round and `count` iterations."""
        return iterations(self.recipe.model_copy(update={"iterations": count}), self.resolved)


def arm_runs(study: Study, recipes: Mapping[str, Recipe], resolved: Mapping[str, Resolved], seeds: tuple[int, ...]) -> list[ArmRun]:
    """All runs. Those of the first contrast come first, seed by seed: an interrupted study has complete pairs, and complete contrasts."""
    groups = [*study.pairs, tuple(study.arms)]
    places = dict.fromkeys((arm, seed) for group in groups for seed in seeds for arm in group)
    return [ArmRun(arm, seed, recipes[arm].model_copy(update={"seed": seed}), resolved[arm]) for arm, seed in places]
