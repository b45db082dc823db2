"""The solver: respond, reward, pair, train [paper, 3.3.2]. An on-policy loss does all of that within training."""

from collections.abc import Mapping, Sequence
from typing import Any

from eva_stages.core.config.engine_config import RayEngine
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.rewards_config import EnsembleReward, PairwiseReward
from eva_stages.core.config.solver_config import CustomLoss, OnlineDPO, OnPolicyLoss
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.resolved import Resolved
from eva_stages.core.stage import FunctionStage, Outside, Stage, Use, as_data
from eva_stages.models.sampling import Sampling
from pipelines.model_calls import date_of, reward_model
from pipelines.response_stages import keep_thoughts, responding, rewarding, shown_system_prompt
from pipelines.rewrite_stages import rewriting
from pipelines.table_stages import table_stage


def solver_stages(
    recipe: Recipe, resolved: Resolved, iteration: int, prompts: Stage, policy: Stage | Outside, initial: Outside, earlier: Sequence[Stage]
) -> tuple[Stage, ...]:
    """From a prompt set and a policy to the next policy, which is the last stage.

    Args:
        policy: the checkpoint that responds, and where training starts unless it starts from scratch.
        initial: the base policy.
        earlier: the pairs of earlier iterations, which training from scratch uses too.
    """
    if isinstance(recipe.solver.loss, OnPolicyLoss):
        return (on_policy_training(recipe, resolved, iteration, prompts, policy, initial),)
    solver = recipe.solver
    responses = responding(recipe, resolved, "respond", iteration, prompts, policy, solver.responses)
    rewards = rewarding(recipe, resolved, "reward", iteration, prompts, responses, policy)
    pairs = table_stage(
        "pair",
        iteration,
        {"prompts": prompts, "responses": responses, "rewards": rewards},
        "eva_stages.solver.pairing:MakePairs",
        solver.pairs.model_dump(),
        version=3,
    )
    rewrite_stages = rewriting(recipe, resolved, iteration, prompts, pairs, policy)
    final_pairs = rewrite_stages[-1] if rewrite_stages else pairs
    scratch = solver.training.start == "scratch"
    pool = (_pool_stage(iteration, [*earlier, final_pairs]),) if scratch and earlier else ()
    start = initial if scratch else policy
    training = _training_stage(recipe, resolved, iteration, start, initial, {"pairs": pool[-1] if pool else final_pairs})
    return responses, rewards, pairs, *rewrite_stages, *pool, training


def pairs_of(stages: Sequence[Stage]) -> list[Stage]:
    """The final pairs of an iteration's solver; none for an on-policy loss."""
    return [stage for stage in stages if stage.name in ("rewritten", "pair")][-1:]


def on_policy_training(
    recipe: Recipe,
    resolved: Resolved,
    iteration: int,
    prompts: Stage,
    policy: Stage | Outside,
    initial: Outside,
    settings: Mapping[str, Any] | None = None,
) -> FunctionStage:
    """On-policy training: the policy samples with the settings of `policy.generator`, and the reward scores in the training processes.

    `settings`: more arguments of the training.
    """
    assert not isinstance(recipe.reward, EnsembleReward | PairwiseReward)  # `check` has seen to it
    reward, inputs = reward_model(recipe.reward, recipe, resolved, policy)
    on_policy = {
        "responses": recipe.solver.responses,
        "sampling": recipe.policy.generator.model_dump(include=set(Sampling._fields) | {"max_new_tokens"}),
        "keep_thoughts": keep_thoughts(recipe),
        "shown_system_prompt": shown_system_prompt(recipe).get("system_prompt"),
        "reward": as_data(reward),
    }
    if isinstance(recipe.solver.loss, OnlineDPO):
        on_policy["min_gap"] = recipe.solver.pairs.min_gap
    data = {**inputs, "prompts": prompts}
    return _training_stage(recipe, resolved, iteration, policy, initial, data, {"on_policy": on_policy, **(settings or {})})


def _training_stage(
    recipe: Recipe,
    resolved: Resolved,
    iteration: int,
    start: Stage | Outside,
    initial: Outside,
    data: Mapping[str, Stage | Outside],
    settings: Mapping[str, Any] | None = None,
) -> FunctionStage:
    """Training from `start` on `data`. The reference is `start` too, or the base policy; losses without a reference ignore it."""
    solver = recipe.solver
    if isinstance(solver.loss, CustomLoss):
        settings = {**(settings or {}), "loss_function": resolved.function(solver.loss.function)}
    arguments = {
        "loss": solver.loss.model_dump(exclude={"function": True, "runtime": {"server"}}),
        "training": solver.training.model_dump(exclude={"runtime", "start"}),
        "system_prompt": recipe.policy.generator.system_prompt,
        "date": None,
        **date_of(resolved, initial),
        "seed": derive_seed(recipe.seed, "train", iteration) % 2**31,
        **(settings or {}),
    }
    engine = recipe.runtime.engine
    cluster = engine.address if isinstance(engine, RayEngine) else "auto"
    runtime = {"training": solver.training.runtime.model_dump(), "cluster": cluster, "unscored": recipe.limits.unscored}
    if isinstance(solver.loss, OnPolicyLoss) and solver.loss.runtime.server:
        runtime["server"] = solver.loss.runtime.server
    return FunctionStage(
        "train",
        iteration,
        {**data, "policy": start, "reference": initial if solver.reference == "initial" else start},
        function=Use("eva_stages.solver.launching:train", arguments, {"runtime": runtime}),
        version=5,
    )


def _pool_stage(iteration: int, pairs: Sequence[Stage]) -> Stage:
    inputs = {f"pairs_{index}": pair_set for index, pair_set in enumerate(pairs)}
    return table_stage("pool", iteration, inputs, "eva_stages.solver.pooling:PoolPairs", version=2)
