"""A complete run: a base round on the seed prompts, then eva iterations, each with its evaluation and its health [paper, Algorithm 1]."""

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.kinds import Role
from eva_stages.core.resolved import Resolved
from eva_stages.core.rounds import Iteration
from eva_stages.core.stage import Stage
from pipelines.analysis_stages import analysing, coverage_stages
from pipelines.cleaning_stages import decontamination_stages
from pipelines.controls import control_stages
from pipelines.creator import creator_stages
from pipelines.creator_training import solver_start
from pipelines.evaluation import evaluations
from pipelines.health_stages import health_stages
from pipelines.online_iteration import online_iterations
from pipelines.prompt_stages import prompts_stage
from pipelines.selection_stages import memory_of
from pipelines.solver import pairs_of, solver_stages


def iterations(recipe: Recipe, resolved: Resolved) -> list[Iteration]:
    """All iterations of a run, upstream first."""
    base = resolved.checkpoint(recipe.policy.model, recipe.policy.revision)
    seeds = decontamination_stages(recipe, resolved, 0, prompts_stage(recipe, resolved))[-1]
    if recipe.evaluation.only:
        return [Iteration(0, seeds, (), (), evaluations(recipe, resolved, base, [])[0])]
    if recipe.mode == "online":
        return online_iterations(recipe, resolved)
    prompt_sets: list[Stage] = []
    creators: list[tuple[Stage, ...]] = []
    solvers: list[tuple[Stage, ...]] = []
    for number in range(recipe.iterations + 1):
        policy = solvers[-1][-1] if solvers else base
        if number == 0:
            creator: tuple[Stage, ...] = (seeds,)
        elif recipe.creator.control:
            creator = control_stages(recipe, resolved, number, seeds, policy, creators)
        else:
            *earlier_sets, current_set = prompt_sets
            creator = creator_stages(recipe, resolved, number, current_set, earlier_sets, policy, memory_of(prompt_sets, creators))
        prompts = creator[-1]
        analysis = analysing(recipe, resolved, number, prompts, base)
        earlier_pairs = [pairs for stages in solvers for pairs in pairs_of(stages)]
        prompt_sets.append(prompts)
        analyses = [stage for stages in (*creators, analysis) for stage in stages if stage.kind.role == Role.ANALYSIS]
        creators.append((*creator, *analysis, *coverage_stages(recipe, resolved, prompt_sets, analyses)))
        solvers.append(solver_stages(recipe, resolved, number, prompts, solver_start(recipe, creator, policy), base, earlier_pairs))
    base_evaluation, evaluation_stages = evaluations(recipe, resolved, base, [stages[-1] for stages in solvers])
    health = health_stages(recipe, resolved, seeds, base, creators, prompt_sets, solvers, base_evaluation, evaluation_stages)
    evaluation_stages[0] = (*base_evaluation, *evaluation_stages[0])
    iteration_parts = zip(prompt_sets, creators, solvers, evaluation_stages, health, strict=True)
    return [Iteration(number, *parts) for number, parts in enumerate(iteration_parts)]
