"""A run of mode online: a warm-up on the seed prompts, then intervals in which prompts evolve while the policy trains on them."""

from itertools import chain

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.resolved import Resolved
from eva_stages.core.rounds import Iteration
from eva_stages.core.stage import Stage
from pipelines.analysis_stages import analysing, coverage_stages
from pipelines.cleaning_stages import decontamination_stages
from pipelines.evaluation import evaluations
from pipelines.health_stages import health_stages
from pipelines.interval_stages import interval_stages
from pipelines.online_training import interval_training
from pipelines.prompt_stages import prompts_stage


def online_iterations(recipe: Recipe, resolved: Resolved) -> list[Iteration]:
    """All intervals of a run, upstream first."""
    base = resolved.checkpoint(recipe.policy.model, recipe.policy.revision)
    seeds = decontamination_stages(recipe, resolved, 0, prompts_stage(recipe, resolved))[-1]
    originals, analyses, prompt_sets = [seeds], list[Stage](), list[Stage]()
    creators: list[tuple[Stage, ...]] = []
    solvers: list[tuple[Stage, ...]] = []
    for number in range(recipe.iterations + 1):
        policy = solvers[-1][-1] if solvers else base
        training = interval_training(recipe, resolved, number, seeds, policy, base)
        originals += [stage for name, stage in training.inputs.items() if name == "fresh" and isinstance(stage, Stage)]
        tables = interval_stages(recipe, resolved, number, training, originals, list(chain.from_iterable(creators)))
        analysis = analysing(recipe, resolved, number, tables[-1], base)
        analyses += analysis
        prompt_sets.append(tables[-1])
        coverage = coverage_stages(recipe, resolved, prompt_sets, analyses)
        creators.append((*originals[number:], *tables, *analysis, *coverage))
        solvers.append((training,))
    base_evaluation, evaluation_stages = evaluations(recipe, resolved, base, [stages[-1] for stages in solvers])
    health = health_stages(recipe, resolved, seeds, base, creators, prompt_sets, solvers, base_evaluation, evaluation_stages)
    evaluation_stages[0] = (*base_evaluation, *evaluation_stages[0])
    iteration_parts = zip(prompt_sets, creators, solvers, evaluation_stages, health, strict=True)
    return [Iteration(number, *parts) for number, parts in enumerate(iteration_parts)]
