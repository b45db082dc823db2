"""The two stages that both players share: the policy answers prompts, and the reward scores the answers."""

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.rewards import EnsembleReward
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.stage import Limit, Outside, RowStage, Stage, TableStage, Use
from eva_stages.models.choosing import ROWS, OneReward, policy_generator, reward_model


def responding(recipe: Recipe, name: str, iteration: int, prompts: Stage, policy: Stage | Outside, n: int) -> RowStage:
    """n responses of the policy to every prompt."""
    generator, needed = policy_generator(recipe.policy, policy)
    step = Use(
        "eva_stages.core.responding:Respond",
        {"llm": generator, "num_generations": n, "seed": derive_seed(recipe.seed, name, iteration)},
    )
    advice = "look at the chat template, at policy.generator.max_new_tokens and at the policy itself, or raise limits.empty"
    return RowStage(
        name,
        iteration,
        {"prompts": prompts, **needed},
        sources=("prompts",),
        steps=(step,),
        schema="responses",
        required=("responses",),
        limits=(Limit("empty", "responses", recipe.limits.empty, advice),),
        rows_per_part=recipe.runtime.rows_per_part,
    )


def rewarding(recipe: Recipe, name: str, iteration: int, prompts: Stage, responses: Stage, policy: Stage | Outside) -> Stage:
    """A reward for every response; an ensemble is one stage per member and one that combines them."""
    ensemble = recipe.reward
    if not isinstance(ensemble, EnsembleReward):
        return _rewarding(recipe, ensemble, name, iteration, prompts, responses, policy)
    members = {
        f"member_{index}": _rewarding(recipe, member.reward, f"{name}-member-{index}", iteration, prompts, responses, policy)
        for index, member in enumerate(ensemble.members)
    }
    weights = [member.weight for member in ensemble.members]
    combine = Use("eva_stages.models.ensemble:CombineRewards", {"weights": weights, "combine": ensemble.combine})
    return TableStage(name, iteration, members, sources=tuple(members), step=combine)


def _rewarding(
    recipe: Recipe, config: OneReward, name: str, iteration: int, prompts: Stage, responses: Stage, policy: Stage | Outside
) -> RowStage:
    reward, needed = reward_model(config, recipe.policy, policy)
    return RowStage(
        name,
        iteration,
        {"prompts": prompts, "responses": responses, **needed},
        sources=("prompts", "responses"),
        steps=(Use("eva_stages.models.rewards:RewardResponses", {"reward": reward}),),
        schema=ROWS.get(config.kind, "rewards"),
        required=("rewards",),
        limits=(unscored(recipe),),
        rows_per_part=recipe.runtime.rows_per_part,
    )


def unscored(recipe: Recipe) -> Limit:
    """The recipe's limit on responses without a reward."""
    advice = "see the failures column of the part files, mend the reward, or raise limits.unscored"
    return Limit("unscored", "responses", recipe.limits.unscored, advice)
