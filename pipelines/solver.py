"""The response player: answer, score, pair, train [paper, 3.3.2]."""

from collections.abc import Sequence

from eva_stages.core.config import Recipe, Solver
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.stage import FunctionStage, Outside, Stage, TableStage, Use
from pipelines.playing import responding, rewarding
from pipelines.rewriting import rewriting


def solver_stages(
    recipe: Recipe, iteration: int, prompts: Stage, policy: Stage | Outside, initial: Outside, earlier: Sequence[Stage]
) -> tuple[Stage, ...]:
    """From a prompt set and a policy to the next policy, which is the last stage.

    Args:
        policy: the checkpoint that answers, and where training starts unless it starts from scratch.
        initial: theta_0.
        earlier: the pairs of the iterations before, which training from scratch takes in.
    """
    solver = recipe.solver
    responses = responding(recipe, "respond", iteration, prompts, policy, solver.responses)
    rewards = rewarding(recipe, "reward", iteration, prompts, responses, policy)
    pairs = TableStage(
        "pair",
        iteration,
        {"prompts": prompts, "responses": responses, "rewards": rewards},
        sources=("prompts", "responses", "rewards"),
        step=Use("eva_stages.solver.pairing:MakePairs", solver.pairs.model_dump()),
        version=2,
    )
    settings = {
        "kind": solver.loss.kind,
        "loss": solver.loss.model_dump(exclude={"kind"}),
        **solver.training.model_dump(exclude={"runtime", "start"}),
        "seed": derive_seed(recipe.seed, "train", iteration) % 2**31,
    }
    rewritten = rewriting(recipe, iteration, prompts, pairs, policy)
    whole = rewritten[-1] if rewritten else pairs
    scratch = solver.training.start == "scratch"
    pool = (_pooled(iteration, [*earlier, whole]),) if scratch and earlier else ()
    start = initial if scratch else policy
    trained = FunctionStage(
        "train",
        iteration,
        {"policy": start, "reference": _reference(solver, start, initial), "pairs": pool[-1] if pool else whole},
        function=Use("eva_stages.solver.launching:train", settings, {"runtime": solver.training.runtime.model_dump()}),
        version=2,
    )
    return responses, rewards, pairs, *rewritten, *pool, trained


def pairs_of(stages: Sequence[Stage]) -> Stage:
    """The pairs that an iteration's solver made, rewritten if they were."""
    return next(stage for stage in reversed(stages) if stage.name in ("rewritten", "pair"))


def _pooled(iteration: int, pairs: Sequence[Stage]) -> Stage:
    inputs = {f"pairs_{index}": one for index, one in enumerate(pairs)}
    return TableStage("pool", iteration, inputs, sources=tuple(inputs), step=Use("eva_stages.solver.pooling:PoolPairs"))


def _reference(solver: Solver, policy: Stage | Outside, initial: Outside) -> Stage | Outside:
    """The reference policy's checkpoint; losses without one take no notice of it."""
    return initial if solver.reference == "initial" else policy
