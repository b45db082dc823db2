"""The two stages that creator and solver share: the policy responds to prompts, and the reward scores the responses."""

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.rewards_config import EnsembleReward, OneReward, Reward
from eva_stages.core.kinds import member_name
from eva_stages.core.resolved import Resolved
from eva_stages.core.stage import Outside, RowStage, Stage, TableStage, Use
from pipelines.model_calls import policy_generator, reward_model
from pipelines.seeds import sampling_seed
from pipelines.stage_limits import empty_limit, unscored_limit


def responding(recipe: Recipe, resolved: Resolved, name: str, iteration: int, prompts: Stage, policy: Stage | Outside, n: int) -> RowStage:
    """n responses of the policy to every prompt."""
    generator, inputs = policy_generator(recipe, resolved, policy)
    seed = sampling_seed(recipe, generator, name, iteration)
    settings = {"num_generations": n, **seed, "keep_thoughts": keep_thoughts(recipe)}
    step = Use("eva_stages.core.responding:Respond", {"llm": generator, **settings})
    return RowStage(
        name,
        iteration,
        {"prompts": prompts, **inputs},
        version=2,
        sources=("prompts",),
        steps=(step,),
        required_columns=("responses",),
        limits=(empty_limit(recipe),),
        rows_per_part=recipe.runtime.rows_per_part,
    )


def rewarding(
    recipe: Recipe,
    resolved: Resolved,
    name: str,
    iteration: int,
    prompts: Stage,
    responses: Stage,
    policy: Stage | Outside,
    reward: Reward | None = None,
) -> Stage:
    """A reward for every response, by default the recipe's. An ensemble has a stage per member and a stage that combines the rewards."""
    ensemble = reward or recipe.reward
    if not isinstance(ensemble, EnsembleReward):
        return _rewarding(recipe, resolved, ensemble, name, iteration, prompts, responses, policy)
    members = {
        f"member_{index}": _rewarding(recipe, resolved, member.reward, member_name(name, index), iteration, prompts, responses, policy)
        for index, member in enumerate(ensemble.members)
    }
    weights = [member.weight for member in ensemble.members]
    combine = Use("eva_stages.models.ensemble:CombineRewards", {"weights": weights, "combine": ensemble.combine})
    return TableStage(name, iteration, members, sources=tuple(members), step=combine)


def _rewarding(
    recipe: Recipe,
    resolved: Resolved,
    config: OneReward,
    name: str,
    iteration: int,
    prompts: Stage,
    responses: Stage,
    policy: Stage | Outside,
) -> RowStage:
    reward, inputs = reward_model(config, recipe, resolved, policy)
    return RowStage(
        name,
        iteration,
        {"prompts": prompts, "responses": responses, **inputs},
        version=2,
        sources=("prompts", "responses"),
        steps=(Use("eva_stages.models.rewards:RewardResponses", {"reward": reward, **shown_system_prompt(recipe)}),),
        schema=config.row_schema,
        required_columns=("rewards",),
        limits=(unscored_limit(recipe),),
        rows_per_part=recipe.runtime.rows_per_part,
    )


def keep_thoughts(recipe: Recipe) -> bool:
    """Whether the texts of the policy's responses have its thoughts in them."""
    return recipe.policy.reasoning == "keep"


def shown_system_prompt(recipe: Recipe) -> dict[str, str]:
    """The system prompt for rewards as an argument, if the recipe shows it to them."""
    system_prompt = recipe.policy.generator.system_prompt
    return {"system_prompt": system_prompt} if recipe.policy.system_prompt_scored and system_prompt else {}
