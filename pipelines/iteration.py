"""A whole run: a base round on the seed prompts, then eva iterations, each with its evaluation [paper, Algorithm 1]."""

from dataclasses import dataclass
from pathlib import Path

from eva_stages.core.config import FilePrompts, HubPrompts, Recipe
from eva_stages.core.errors import ConfigError
from eva_stages.core.fingerprint import file_digest
from eva_stages.core.stage import FunctionStage, Outside, Stage, Use
from eva_stages.creator.hub_prompts import dataset_commit
from eva_stages.models.loading import resolve
from pipelines.analysing import analysing
from pipelines.cleaning import decontaminated
from pipelines.creator import creator_stages
from pipelines.evaluation import base_stages, evaluation_stages
from pipelines.solver import solver_stages


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


def prompts_stage(recipe: Recipe) -> Stage:
    """The seed prompts X_0."""
    prompts = recipe.prompts
    if isinstance(prompts, FilePrompts):
        path = Path(prompts.path).expanduser()
        if not path.is_file():
            raise ConfigError([f"prompts.path: there is no file {path}"])
        settings = prompts.model_dump(include={"column", "reference_column", "size", "max_characters"})
        load = Use("eva_stages.creator.prompts:load_file", {**settings, "seed": recipe.seed}, {"file": str(path)})
        return FunctionStage("prompts", 0, {"file": Outside(path.name, path, file_digest(path))}, function=load)
    if isinstance(prompts, HubPrompts):
        settings = {**prompts.model_dump(exclude={"kind"}), "revision": dataset_commit(prompts.id, prompts.revision)}
        load = Use("eva_stages.creator.hub_prompts:load_hub", {**settings, "seed": recipe.seed})
        return FunctionStage("prompts", 0, {}, function=load)
    load = Use("eva_stages.creator.prompts:load_microworld", {"size": prompts.size, "seed": recipe.seed})
    return FunctionStage("prompts", 0, {}, function=load)


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
        topics = next((stage for one in made[-1:] for stage in one.creator if stage.name == "analyse-topics"), None)
        creator = creator_stages(recipe, number, present, earlier, policy, informed, topics) if number else (seeds,)
        prompts = creator[-1]
        solver = solver_stages(recipe, number, prompts, policy)
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
