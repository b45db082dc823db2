"""The benchmark of reasoning-gym's held-out tasks."""

from eva_stages.core.config.evaluation_config import ReasoningGym
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.rewards_config import VerifierReward
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.kinds import QUESTIONS, REASONING_GYM, SCORE, Side, stage_name
from eva_stages.core.resolved import Resolved
from eva_stages.core.stage import FunctionStage, Outside, Stage, Use
from pipelines.model_calls import reward_model
from pipelines.sampled_answers import sampled_answers


def task_stages(
    recipe: Recipe, resolved: Resolved, benchmark: ReasoningGym, side: Side, iteration: int, policy: Stage | Outside
) -> tuple[Stage, ...]:
    """Questions, responses, rewards and score of a policy; the questions are the same stage for every policy."""
    settings = {
        "families": benchmark.families,
        "demonstrations": benchmark.demonstrations,
        "size": benchmark.questions,
        "package": resolved.tasks_version,
    }
    load = Use("eva_stages.creator.task_prompts:load_task_questions", settings)
    questions = FunctionStage(stage_name(QUESTIONS, REASONING_GYM), 0, {}, function=load)
    reward, _ = reward_model(VerifierReward(kind="verifier", function="reasoning_gym"), recipe, resolved, policy)
    answers, rewards = sampled_answers(recipe, resolved, REASONING_GYM, benchmark.samples, reward, side, iteration, questions, policy)
    score = Use("eva_stages.evaluation.task_scores:score", {"seed": derive_seed(recipe.seed, "score")})
    inputs = {"answers": answers, "rewards": rewards}
    return questions, answers, rewards, FunctionStage(stage_name(SCORE, REASONING_GYM, side), iteration, inputs, function=score)
