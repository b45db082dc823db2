"""Held-out evaluation of a policy on the recipe's benchmarks; Lettercraft's stages are here, those of public benchmarks in `benchmarks`.

Lettercraft scores with its own exact reward, whatever a recipe trains on: figures of different recipes mean the same.
"""

from collections.abc import Sequence

from eva_stages.core.config.evaluation_config import Lettercraft, ReasoningGym
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.rewards_config import LettercraftReward
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.kinds import BASE, EVAL, JUDGE, LETTERCRAFT, QUESTIONS, SCORE, Side, stage_name
from eva_stages.core.resolved import Resolved
from eva_stages.core.stage import FunctionStage, Outside, RowStage, Stage, Use
from pipelines.benchmarks import benchmark_stages
from pipelines.model_calls import generator, reward_model
from pipelines.prompt_stages import references_setting
from pipelines.sampled_answers import sampled_answers
from pipelines.seeds import sampling_seed
from pipelines.stage_limits import judging_limits
from pipelines.task_benchmark import task_stages


def evaluations(
    recipe: Recipe, resolved: Resolved, base: Outside, policies: Sequence[Stage]
) -> tuple[tuple[Stage, ...], list[tuple[Stage, ...]]]:
    """The evaluation of the base policy on every benchmark, and of the policy of each iteration from 0."""
    of_base: list[Stage] = []
    of_policies: list[list[Stage]] = [[] for _ in policies]
    for index, benchmark in enumerate(recipe.evaluation.benchmarks):
        place = f"evaluation.benchmarks.{index}"
        if isinstance(benchmark, ReasoningGym):
            of_base += task_stages(recipe, resolved, benchmark, BASE, 0, base)
            for number, policy in enumerate(policies):
                of_policies[number] += task_stages(recipe, resolved, benchmark, EVAL, number, policy)[1:]
            continue
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
    load = Use("eva_stages.creator.prompt_loading:load_held_out", {"size": benchmark.prompts, **distribution, **references_setting(recipe)})
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
    reward, _ = reward_model(LettercraftReward(kind="lettercraft"), recipe, resolved, policy)
    return sampled_answers(recipe, resolved, LETTERCRAFT, benchmark.samples, reward, side, iteration, questions, policy)


def _score(recipe: Recipe, benchmark: Lettercraft, name: str, iteration: int, inputs: dict[str, Stage]) -> Stage:
    settings = {"confidence": benchmark.confidence, "seed": derive_seed(recipe.seed, "score")}
    return FunctionStage(name, iteration, inputs, function=Use("eva_stages.evaluation.lettercraft:score", settings), version=3)
