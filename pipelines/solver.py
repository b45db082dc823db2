"""The response player: answer, score, pair, train [paper, 3.3.2]."""

from eva_stages.core.config import Recipe
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.stage import FunctionStage, Outside, Stage, TableStage, Use
from pipelines.playing import responding, rewarding


def solver_stages(recipe: Recipe, iteration: int, prompts: Stage, policy: Stage | Outside) -> tuple[Stage, ...]:
    """From a prompt set and a policy to the next policy, which is the last stage; `policy` is also the reference."""
    solver = recipe.solver
    responses = responding(recipe, "respond", iteration, prompts, policy, solver.responses)
    rewards = rewarding(recipe, "reward", iteration, prompts, responses, policy)
    pairs = TableStage(
        "pair",
        iteration,
        {"prompts": prompts, "responses": responses, "rewards": rewards},
        sources=("prompts", "responses", "rewards"),
        step=Use("eva_stages.solver.pairing:MakePairs", solver.pairs.model_dump()),
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
        {"policy": policy, "reference": policy, "pairs": pairs},
        function=Use("eva_stages.solver.launching:train", settings, {"runtime": solver.training.runtime.model_dump()}),
    )
    return responses, rewards, pairs, trained
