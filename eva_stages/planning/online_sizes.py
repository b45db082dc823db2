"""The size of an interval of online training: what its steps sample, score, evolve and judge.

Numbers are upper limits: a prompt may be used several times in an interval, and evolutions may be rejected before the gate.
"""

from collections.abc import Iterator
from typing import NamedTuple

from eva_stages.core.config.models_config import Evolver, Sampling
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.rewards_config import LLMJudgeReward
from eva_stages.creator.gate_questions import PASSES, judged_tests


class IntervalSize(NamedTuple):
    """How much one interval does, at most."""

    uses: int
    """Prompts that its steps take."""
    parents: int
    """Prompts that are drawn to be evolved."""
    evolutions: int


def interval_size(recipe: Recipe, iteration: int) -> IntervalSize:
    """The size of an interval; the warm-up and the controls evolve nothing."""
    assert recipe.online is not None
    prompts = recipe.solver.training.batch_size // recipe.solver.responses
    is_evolving = iteration > 0 and recipe.creator.control is None
    parents = round(recipe.creator.selection.fraction * prompts) * recipe.online.interval if is_evolving else 0
    return IntervalSize(prompts * recipe.online.interval, parents, parents * recipe.creator.evolve.generations)


def interval_calls(recipe: Recipe, iteration: int) -> dict[str, int]:
    """The calls of an interval's training by what they are for, without those that there are none of."""
    size, creator = interval_size(recipe, iteration), recipe.creator
    critic, gate = creator.evolve.feedback and creator.evolve.feedback.critic, creator.curate.gate
    calls = {
        "rewards": size.uses * recipe.solver.responses,
        "evolver": size.evolutions,
        "critic": size.parents if critic else 0,
        "gate": size.evolutions * PASSES * len(judged_tests(gate)) if gate and gate.judge else 0,
    }
    return {name: count for name, count in calls.items() if count}


def interval_tokens(recipe: Recipe, iteration: int) -> tuple[int, int]:
    """Tokens that an interval generates at most: per use of a prompt by the policy, and by all other models."""
    calls = interval_calls(recipe, iteration)
    limits = {name: model.max_new_tokens if isinstance(model, Sampling) else 0 for name, model in interval_models(recipe)}
    other_tokens = sum(calls.get(name, 0) * limit for name, limit in limits.items())
    return recipe.solver.responses * recipe.policy.generator.max_new_tokens, other_tokens


def interval_models(recipe: Recipe) -> Iterator[tuple[str, Evolver | None]]:
    """The models beside the policy that an interval calls."""
    creator, gate = recipe.creator, recipe.creator.curate.gate
    yield "rewards", recipe.reward.judge if isinstance(recipe.reward, LLMJudgeReward) else None
    yield "evolver", creator.evolve.generator
    yield "critic", creator.evolve.feedback.critic if creator.evolve.feedback else None
    yield "gate", gate.judge if gate else None
