"""Held-out evaluation of a policy on the recipe's benchmarks; Lettercraft's stages are here, those of public benchmarks in `benchmarks`.

Lettercraft scores with its own exact reward, whatever a recipe trains on: figures of different recipes mean the same.
"""

from collections.abc import Sequence

from eva_stages.core.config.evaluation_config import Lettercraft
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.rewards_config import LettercraftReward
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.kinds import ANSWER, ANSWER_REWARD, BASE, EVAL, JUDGE, LETTERCRAFT, QUESTIONS, SCORE, Side, stage_name
from eva_stages.core.resolved import Resolved
from eva_stages.core.stage import FunctionStage, Outside, RowStage, Stage, Use
from pipelines.benchmarks import benchmark_stages
from pipelines.model_calls import generator, policy_generator, reward_model
from pipelines.response_stages import keep_thoughts
from pipelines.seeds import sampling_seed
from pipelines.stage_limits import empty_limit, judging_limits, unscored_limit


def evaluations(
    recipe: Recipe, resolved: Resolved, base: Outside, policies: Sequence[Stage]
) -> tuple[tuple[Stage, ...], list[tuple[Stage, ...]]]:
    """The evaluation of the base policy on every benchmark, and of the policy of each iteration from 0."""
    of_base: list[Stage] = []
    of_policies: list[list[Stage]] = [[] for _ in policies]
    for index, benchmark in enumerate(recipe.evaluation.benchmarks):
        place = f"evaluation.benchmarks.{index}"
        if isinstance(benchmark, Lettercraft):
            stages = base_stages(recipe, resolved, benchmark, base)
            of_base += stages
            for number, policy in enumerate(policies):
                of_policies[number] += evaluation_stages(recipe, resolved, benchmark, number, policy, stages, place)
            continue
        stages, base_answers = benchmark_stages(recipe, resolved, benchmark, BASE, 0, base, base, None, place)
        of_base += stages
        for number, policy in enumerate(policies):
            of_policies[number] += benchmark_stages(recipe, resolved, benchmark, EVAL, number, policy, base, base_answers, place)[0]
    return tuple(of_base), [tuple(stages) for stages in of_policies]


def base_stages(recipe: Recipe, resolved: Resolved, benchmark: Lettercraft, policy: Outside) -> tuple[Stage, ...]:
    """The benchmark's questions, and responses, rewards and score of the base policy."""
    distribution = {} if benchmark.distribution == "classic_target" else {"distribution": benchmark.distribution}
    load = Use("eva_stages.creator.prompt_loading:load_held_out", {"size": benchmark.prompts, **distribution})
    questions = FunctionStage(stage_name(QUESTIONS, LETTERCRAFT), 0, {}, function=load)
    answers, rewards = _answer_stages(recipe, resolved, benchmark, BASE, 0, questions, policy)
    return questions, answers, rewards, _score(recipe, benchmark, stage_name(SCORE, LETTERCRAFT, BASE), 0, {"rewards": rewards})


def evaluation_stages(
    recipe: Recipe, resolved: Resolved, benchmark: Lettercraft, iteration: int, policy: Stage, base: tuple[Stage, ...], place: str
) -> tuple[Stage, ...]:
    """Responses, rewards, judgments and score of the policy of an iteration, against the stages of the base policy.

    Args:
        place: the benchmark's place in the recipe, for errors.
    """
    questions, base_answers, base_rewards, _ = base
    answers, rewards = _answer_stages(recipe, resolved, benchmark, EVAL, iteration, questions, policy)
    judge, judge_inputs = generator(benchmark.judge, recipe, resolved, policy, "judge")
    judgments = RowStage(
        stage_name(JUDGE, LETTERCRAFT, EVAL),
        iteration,
        {"questions": questions, "answers": answers, "baseline": base_answers, **judge_inputs},
        version=3,
        sources=("questions", "answers", "baseline"),
        prefixes={"baseline": "baseline_"},
        steps=(
            Use("eva_stages.evaluation.pair_judging:JudgePairs", {"llm": judge, **sampling_seed(recipe, judge, "eval-judge", iteration)}),
        ),
        required_columns=("question_id", "game"),
        limits=judging_limits(recipe, f"{place}.judge"),
        rows_per_part=recipe.runtime.rows_per_part,
    )
    inputs = {"rewards": rewards, "base_rewards": base_rewards, "judgments": judgments}
    return answers, rewards, judgments, _score(recipe, benchmark, stage_name(SCORE, LETTERCRAFT, EVAL), iteration, inputs)


def _answer_stages(
    recipe: Recipe, resolved: Resolved, benchmark: Lettercraft, side: Side, iteration: int, questions: Stage, policy: Stage | Outside
) -> tuple[Stage, Stage]:
    """Sampled and greedy responses, and their rewards."""
    sampling_generator, inputs = policy_generator(recipe, resolved, policy)
    greedy_generator, _ = policy_generator(recipe, resolved, policy, temperature=0.0)
    respond, seed = "eva_stages.core.responding:Respond", sampling_seed(recipe, sampling_generator, "answer", iteration)
    thoughts = {"keep_thoughts": keep_thoughts(recipe)}
    answers = RowStage(
        stage_name(ANSWER, LETTERCRAFT, side),
        iteration,
        {"questions": questions, **inputs},
        version=2,
        sources=("questions",),
        steps=(
            Use(respond, {"llm": sampling_generator, "num_generations": benchmark.samples, **seed, **thoughts}),
            Use(respond, {"llm": greedy_generator, "num_generations": 1, "prefix": "greedy_", **thoughts}),
        ),
        schema="answers",
        required_columns=("responses", "greedy_responses"),
        limits=(empty_limit(recipe),),
        rows_per_part=recipe.runtime.rows_per_part,
    )
    reward, _ = reward_model(LettercraftReward(kind="lettercraft"), recipe, resolved, policy)
    score = "eva_stages.models.rewards:RewardResponses"
    rewards = RowStage(
        stage_name(ANSWER_REWARD, LETTERCRAFT, side),
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


def _score(recipe: Recipe, benchmark: Lettercraft, name: str, iteration: int, inputs: dict[str, Stage]) -> Stage:
    settings = {"confidence": benchmark.confidence, "seed": derive_seed(recipe.seed, "score")}
    return FunctionStage(name, iteration, inputs, function=Use("eva_stages.evaluation.lettercraft:score", settings), version=3)
