"""The response player: answer, score, pair, train [paper, 3.3.2]."""

from eva_stages.core.config import Recipe, Solver
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.stage import FunctionStage, Outside, Stage, TableStage, Use
from pipelines.playing import responding, rewarding


def solver_stages(recipe: Recipe, iteration: int, prompts: Stage, policy: Stage | Outside, initial: Outside) -> tuple[Stage, ...]:
    """From a prompt set and a policy to the next policy, which is the last stage; `initial` is theta_0."""
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
        **solver.training.model_dump(exclude={"runtime"}),
        "seed": derive_seed(recipe.seed, "train", iteration) % 2**31,
    }
    trained = FunctionStage(
        "train",
        iteration,
        {"policy": policy, "reference": _reference(solver, policy, initial), "pairs": pairs},
        function=Use("eva_stages.solver.launching:train", settings, {"runtime": solver.training.runtime.model_dump()}),
        version=2,
    )
    return responses, rewards, pairs, trained


def _reference(solver: Solver, policy: Stage | Outside, initial: Outside) -> Stage | Outside:
    """The reference policy's checkpoint; losses without one take no notice of it."""
    return initial if solver.reference == "initial" else policy
