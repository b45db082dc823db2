"""A run as its builders return it: the stages of every iteration."""

from collections.abc import Iterable
from dataclasses import dataclass

from eva_stages.core.stage import Stage, closure


@dataclass(frozen=True)
class Iteration:
    """The stages of one iteration. Iteration 0 is the base round: it trains on the seed prompts, and nothing is evolved."""

    number: int
    prompts: Stage
    creator: tuple[Stage, ...]
    solver: tuple[Stage, ...]
    evaluation: tuple[Stage, ...]
    health: tuple[Stage, ...] = ()

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (*self.creator, *self.solver, *self.evaluation, *self.health)


def stages_of(rounds: Iterable[Iteration]) -> list[Stage]:
    """The stages of all iterations and everything they need, each once, upstream first."""
    return closure([stage for iteration in rounds for stage in iteration.stages])
