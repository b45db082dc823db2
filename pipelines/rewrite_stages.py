"""The rewriter's stages: rewrite the chosen responses, score the rewrites, put the better ones into the pairs [paper, D.2.1]."""

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.rewards_config import EnsembleReward, PairwiseReward
from eva_stages.core.failures import CALLS
from eva_stages.core.parts import FAILED_CALLS
from eva_stages.core.resolved import Resolved
from eva_stages.core.stage import Outside, RowStage, Stage, Use
from pipelines.model_calls import generator, reward_model
from pipelines.response_stages import shown_system_prompt
from pipelines.seeds import sampling_seed
from pipelines.stage_limits import failed_calls, unscored_limit
from pipelines.table_stages import table_stage


def rewriting(
    recipe: Recipe, resolved: Resolved, iteration: int, prompts: Stage, pairs: Stage, policy: Stage | Outside
) -> tuple[Stage, ...]:
    """From pairs to pairs with rewritten chosen responses, the last stage; none without `solver.rewrite`."""
    config = recipe.solver.rewrite
    if config is None:
        return ()
    assert not isinstance(recipe.reward, EnsembleReward | PairwiseReward)  # `check` has seen to it
    rewriter, rewriter_inputs = generator(config.generator, recipe, resolved, policy, "rewriter")
    settings = {"shortest": config.shortest, "longest": config.longest, **sampling_seed(recipe, rewriter, "rewrite", iteration)}
    rewrites = RowStage(
        "rewrite",
        iteration,
        {"pairs": pairs, **rewriter_inputs},
        version=2,
        sources=("pairs",),
        steps=(Use("eva_stages.solver.rewriting:RewriteChosen", {"llm": rewriter, **settings}),),
        required_columns=("responses",),
        limits=(failed_calls("rewriter", recipe.limits.unrewritten, "solver.rewrite.generator", "limits.unrewritten"),),
        rows_per_part=recipe.runtime.rows_per_part,
    )
    reward, reward_inputs = reward_model(recipe.reward, recipe, resolved, policy)
    rewards = RowStage(
        "rewrite-reward",
        iteration,
        {"responses": rewrites, "prompts": prompts, **reward_inputs},
        sources=("responses", "prompts"),
        steps=(Use("eva_stages.models.rewards:RewardResponses", {"reward": reward, **shown_system_prompt(recipe)}),),
        schema=recipe.reward.rows,
        required_columns=("rewards",),
        limits=(unscored_limit(recipe, FAILED_CALLS, CALLS),),
        rows_per_part=recipe.runtime.rows_per_part,
    )
    rewritten_pairs = table_stage(
        "rewritten",
        iteration,
        {"pairs": pairs, "rewrites": rewrites, "rewards": rewards},
        "eva_stages.solver.rewriting:TakeRewrites",
        {"keep": config.keep},
        version=2,
    )
    return rewrites, rewards, rewritten_pairs
