"""A run as its builders return it: the stages of every iteration."""

from dataclasses import dataclass

from eva_stages.core.stage import Stage


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
