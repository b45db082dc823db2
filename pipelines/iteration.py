"""A complete run: a base round on the seed prompts, then eva iterations, each with its evaluation and its health [paper, Algorithm 1]."""

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.resolved import Resolved
from eva_stages.core.rounds import Iteration
from eva_stages.core.stage import Stage
from pipelines.analysis_stages import analysing
from pipelines.cleaning_stages import decontamination_stages
from pipelines.controls import control_stages
from pipelines.creator import creator_stages
from pipelines.evaluation import evaluations
from pipelines.health_stages import health_stages
from pipelines.prompt_stages import prompts_stage
from pipelines.solver import pairs_of, solver_stages


def iterations(recipe: Recipe, resolved: Resolved) -> list[Iteration]:
    """All iterations of a run, upstream first."""
    base = resolved.checkpoint(recipe.policy.model, recipe.policy.revision)
    seeds = decontamination_stages(recipe, resolved, 0, prompts_stage(recipe, resolved))[-1]
    if recipe.evaluation.only:
        return [Iteration(0, seeds, (), (), evaluations(recipe, resolved, base, [])[0])]
    policies: list[Stage] = []
    players: list[tuple[Stage, tuple[Stage, ...], tuple[Stage, ...]]] = []
    history: list[Stage] = [seeds]
    for number in range(recipe.iterations + 1):
        *earlier, present = history
        policy = policies[-1] if policies else base
        informativeness = [stage for players_stages in players for stage in players_stages[1] if stage.name == "inform"]
        topics = [next((stage for stage in players_stages[1] if stage.name == "analyse-topics"), None) for players_stages in players]
        if number == 0:
            creator: tuple[Stage, ...] = (seeds,)
        elif recipe.creator.control:
            creator = control_stages(recipe, resolved, number, seeds, policy, topics[0])
        else:
            creator = creator_stages(recipe, resolved, number, present, earlier, policy, informativeness, topics[-1])
        prompts = creator[-1]
        earlier_pairs = [pairs for players_stages in players for pairs in pairs_of(players_stages[2])]
        solver = solver_stages(recipe, resolved, number, prompts, policy, base, earlier_pairs)
        policies.append(solver[-1])
        players.append((prompts, (*creator, *analysing(recipe, resolved, number, prompts, base)), solver))
        if number:
            history.append(prompts)
    of_base, of_policies = evaluations(recipe, resolved, base, policies)
    healths = health_stages(recipe, resolved, seeds, base, [(prompts, solver) for prompts, _, solver in players], of_base, of_policies)
    return [
        Iteration(number, *iteration_players, (*(of_base if number == 0 else ()), *evaluation), health)
        for number, (iteration_players, evaluation, health) in enumerate(zip(players, of_policies, healths, strict=True))
    ]
