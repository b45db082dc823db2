"""A whole run: a base round on the seed prompts, then eva iterations, each with its evaluation [paper, Algorithm 1]."""

from dataclasses import dataclass

from eva_stages.core.config import Recipe
from eva_stages.core.stage import Outside, Stage
from eva_stages.models.loading import resolve
from pipelines.analysing import analysing
from pipelines.cleaning import decontaminated
from pipelines.controls import control_stages
from pipelines.creator import creator_stages
from pipelines.evaluation import base_stages, evaluation_stages
from pipelines.prompts import prompts_stage
from pipelines.solver import pairs_of, solver_stages


@dataclass(frozen=True)
class Iteration:
    """The stages of one iteration; iteration 0 is the base round, where nothing is evolved."""

    number: int
    prompts: Stage
    creator: tuple[Stage, ...]
    solver: tuple[Stage, ...]
    evaluation: tuple[Stage, ...]

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (*self.creator, *self.solver, *self.evaluation)


def iterations(recipe: Recipe) -> list[Iteration]:
    """All iterations of a run, upstream first. Reads the digests of what comes from outside."""
    base = resolve(recipe.policy.model, recipe.policy.revision, "policy.model")
    seeds = decontaminated(recipe, 0, prompts_stage(recipe))[-1]
    benchmarks = recipe.evaluation.benchmarks
    measured = {index: base_stages(recipe, benchmark, base) for index, benchmark in enumerate(benchmarks)}
    made: list[Iteration] = []
    policy: Stage | Outside = base
    history: list[Stage] = [seeds]
    for number in range(recipe.iterations + 1):
        *earlier, present = history
        informed = [stage for one in made for stage in one.creator if stage.name == "inform"]
        topics = [next((stage for stage in one.creator if stage.name == "analyse-topics"), None) for one in made]
        if number == 0:
            creator: tuple[Stage, ...] = (seeds,)
        elif recipe.creator.control:
            creator = control_stages(recipe, number, seeds, policy, topics[0])
        else:
            creator = creator_stages(recipe, number, present, earlier, policy, informed, topics[-1])
        prompts = creator[-1]
        solver = solver_stages(recipe, number, prompts, policy, base, [pairs for one in made for pairs in pairs_of(one.solver)])
        policy = solver[-1]
        base_first = tuple(stage for stages in measured.values() for stage in stages) if number == 0 else ()
        evaluated = [
            stage
            for index, benchmark in enumerate(benchmarks)
            for stage in evaluation_stages(recipe, benchmark, number, policy, measured[index])
        ]
        made.append(Iteration(number, prompts, (*creator, *analysing(recipe, number, prompts, base)), solver, (*base_first, *evaluated)))
        if number:
            history.append(prompts)
    return made
