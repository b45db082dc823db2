"""The policy's responses to held-out questions that a program scores: several sampled ones and the greedy one, and their rewards."""

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.kinds import ANSWER, ANSWER_REWARD, Side, stage_name
from eva_stages.core.resolved import Resolved
from eva_stages.core.stage import Outside, RowStage, Stage, Use
from pipelines.model_calls import policy_generator
from pipelines.response_stages import keep_thoughts
from pipelines.seeds import sampling_seed
from pipelines.stage_limits import empty_limit, unscored_limit


def sampled_answers(
    recipe: Recipe,
    resolved: Resolved,
    benchmark: str,
    samples: int,
    reward: Use,
    side: Side,
    iteration: int,
    questions: Stage,
    policy: Stage | Outside,
) -> tuple[Stage, Stage]:
    """Sampled and greedy responses with the settings of `policy.generator`, and their rewards.

    Args:
        benchmark: its name in the names of stages.
    """
    sampling_generator, inputs = policy_generator(recipe, resolved, policy)
    greedy_generator, _ = policy_generator(recipe, resolved, policy, temperature=0.0)
    respond, seed = "eva_stages.core.responding:Respond", sampling_seed(recipe, sampling_generator, "answer", iteration)
    thoughts = {"keep_thoughts": keep_thoughts(recipe)}
    answers = RowStage(
        stage_name(ANSWER, benchmark, side),
        iteration,
        {"questions": questions, **inputs},
        version=2,
        sources=("questions",),
        steps=(
            Use(respond, {"llm": sampling_generator, "num_generations": samples, **seed, **thoughts}),
            Use(respond, {"llm": greedy_generator, "num_generations": 1, "prefix": "greedy_", **thoughts}),
        ),
        schema="answers",
        required_columns=("responses", "greedy_responses"),
        limits=(empty_limit(recipe),),
        rows_per_part=recipe.runtime.rows_per_part,
    )
    score = "eva_stages.models.rewards:RewardResponses"
    rewards = RowStage(
        stage_name(ANSWER_REWARD, benchmark, side),
        iteration,
        {"questions": questions, "answers": answers},
        version=2,
        sources=("questions", "answers"),
        steps=(Use(score, {"reward": reward}), Use(score, {"reward": reward, "responses": "greedy_responses"})),
        required_columns=("rewards", "greedy_rewards"),
        limits=(unscored_limit(recipe),),
        rows_per_part=recipe.runtime.rows_per_part,
    )
    return answers, rewards
