"""The public benchmarks as stages: questions, responses, judgments or checks, score; for the base policy and for every iteration."""

from collections.abc import Mapping

from eva_stages.core.config.evaluation_config import (
    GSM8K,
    AlpacaEval,
    ArenaHard,
    Benchmark,
    CustomBenchmark,
    IFEval,
    JudgedBenchmark,
    LMEval,
    MTBench,
    benchmark_name,
)
from eva_stages.core.config.models_config import LiteLLMModel
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.kinds import ANSWER, BASE, BASELINE, CHECK, JUDGE, QUESTIONS, SCORE, Side, stage_name
from eva_stages.core.resolved import Resolved
from eva_stages.core.stage import RUN, FunctionStage, Input, Outside, RowStage, Stage, Use
from pipelines.model_calls import generator, policy_generator
from pipelines.response_stages import keep_thoughts
from pipelines.seeds import sampling_seed
from pipelines.stage_limits import empty_limit, judging_limits, unscored_limit

ROWS_PER_PART = 4
"""Questions per part of a paid judge's judgments, in multiples of the concurrency: the journal saves every call anyway, and the end
of each part waits for its slowest call."""

Files = Mapping[str, Outside]


def benchmark_stages(
    recipe: Recipe,
    resolved: Resolved,
    benchmark: Benchmark | LMEval,
    side: Side,
    iteration: int,
    policy: Stage | Outside,
    first: Outside,
    base: Stage | None,
    place: str,
) -> tuple[tuple[Stage, ...], Stage | None]:
    """The stages that measure a policy, questions first and score last; and its answers, where they are a stage.

    Args:
        side: `base` for the base policy, `eval` for that of an iteration.
        first: the base policy, which judges where a recipe lets the policy judge: all policies have the same judge.
        base: the base policy's responses, if they are already stages.
        place: the benchmark's place in the recipe, for errors.
    """
    name = benchmark_name(benchmark)
    files = resolved.benchmarks.get(name, {})
    if isinstance(benchmark, LMEval):
        return (_harness(recipe, benchmark, stage_name(SCORE, name, side), iteration, {"policy": policy, **files}),), None
    questions = _questions(benchmark, name, files)
    score_name, package = stage_name(SCORE, name, side), _files_of(files, "gamed", "difficulty")
    answers = _answers(recipe, resolved, benchmark, stage_name(ANSWER, name, side), iteration, questions, policy)
    if isinstance(benchmark, GSM8K | IFEval | CustomBenchmark):
        checks = _check_stage(recipe, resolved, benchmark, stage_name(CHECK, name, side), iteration, questions, answers)
        score = _score(recipe, benchmark, score_name, iteration, {"questions": questions, "answers": answers, "checks": checks})
        return (questions, answers, checks, score), answers
    first_stages: tuple[Stage, ...] = (questions, answers)
    inputs: dict[str, Stage | Outside] = {"questions": questions, "answers": answers}
    if isinstance(benchmark, ArenaHard | AlpacaEval):
        if benchmark.baseline == BASE and base is None:
            return first_stages, answers
        baseline = base if benchmark.baseline == BASE and base is not None else _baseline(benchmark, name, questions, files)
        first_stages, inputs = (questions, baseline, answers), {**inputs, "baseline": baseline}
    assert isinstance(benchmark, JudgedBenchmark)
    judge_name, judge_files = stage_name(JUDGE, name, side), _files_of(files, "prompts", "system_prompts")
    judgments = _judgment_stage(recipe, resolved, benchmark, judge_name, iteration, inputs, first, place, judge_files)
    score = _score(recipe, benchmark, score_name, iteration, {**inputs, **package, "judgments": judgments})
    return (*first_stages, judgments, score), answers


def _questions(benchmark: Benchmark, name: str, files: Files) -> Stage:
    load = Use("eva_stages.evaluation.benchmark_questions:load_questions", {"benchmark": str(benchmark.model_dump()["kind"])})
    return FunctionStage(stage_name(QUESTIONS, name), 0, _files_of(files, "questions", "references"), function=load)


def _baseline(benchmark: ArenaHard | AlpacaEval, name: str, questions: Stage, files: Files) -> Stage:
    inputs = {f"answers_{index}": file for index, file in enumerate(_files_of(files, "baseline").values())}
    load = Use("eva_stages.evaluation.benchmark_questions:load_baseline", {"benchmark": benchmark.kind})
    return FunctionStage(stage_name(BASELINE, name), 0, {"questions": questions, **inputs}, function=load)


def _answers(
    recipe: Recipe, resolved: Resolved, benchmark: Benchmark, name: str, iteration: int, questions: Stage, policy: Stage | Outside
) -> Stage:
    sampling = {} if benchmark.temperature is None else {"temperature": benchmark.temperature}
    generator, inputs = policy_generator(recipe, resolved, policy, max_new_tokens=benchmark.max_new_tokens, **sampling)
    by_category = MTBench.TEMPERATURES if isinstance(benchmark, MTBench) and benchmark.temperature is None else None
    seed = sampling_seed(recipe, generator if by_category is None else Use(generator.target), "benchmark-answer")
    settings = {"llm": generator, **seed, "temperatures": by_category, "keep_thoughts": keep_thoughts(recipe)}
    step = Use("eva_stages.evaluation.answering:AnswerTurns", settings)
    return RowStage(
        name,
        iteration,
        {"questions": questions, **inputs},
        version=2,
        sources=("questions",),
        steps=(step,),
        required_columns=("responses",),
        limits=(empty_limit(recipe),),
        rows_per_part=recipe.runtime.rows_per_part,
    )


def _check_stage(
    recipe: Recipe,
    resolved: Resolved,
    benchmark: GSM8K | IFEval | CustomBenchmark,
    name: str,
    iteration: int,
    questions: Stage,
    answers: Stage,
) -> Stage:
    custom = {"in_unit": True} if isinstance(benchmark, CustomBenchmark) else {}
    reward = Use("eva_stages.models.rewards:VerifierReward", {"function": resolved.function(benchmark.score), **custom})
    return RowStage(
        name,
        iteration,
        {"questions": questions, "answers": answers},
        sources=("questions", "answers"),
        steps=(Use("eva_stages.models.rewards:RewardResponses", {"reward": reward}),),
        required_columns=("rewards",),
        limits=(unscored_limit(recipe),),
        rows_per_part=recipe.runtime.rows_per_part,
    )


def _judgment_stage(
    recipe: Recipe,
    resolved: Resolved,
    benchmark: JudgedBenchmark,
    name: str,
    iteration: int,
    inputs: Mapping[str, Stage | Outside],
    first: Outside,
    place: str,
    files: Files,
) -> Stage:
    judge, judge_inputs = generator(benchmark.judge, recipe, resolved, first, "judge", RUN)
    step = _judging(benchmark, judge, files)
    rows = recipe.runtime.rows_per_part
    if isinstance(benchmark.judge, LiteLLMModel):
        rows = max(rows, ROWS_PER_PART * benchmark.judge.runtime.concurrency)
    return RowStage(
        name,
        iteration,
        {**inputs, **files, **judge_inputs},
        version=3,
        sources=tuple(inputs),
        prefixes={"baseline": "baseline_"},
        steps=(step,),
        required_columns=("question_id", "game"),
        limits=judging_limits(recipe, f"{place}.judge"),
        rows_per_part=rows,
    )


def _judging(benchmark: JudgedBenchmark, judge: Use, files: Files) -> Use:
    """The judging step."""
    if isinstance(benchmark, AlpacaEval):
        return Use("eva_stages.evaluation.annotating:AnnotatePairs", {"llm": judge, "annotator": benchmark.annotator})
    protocol = f"arena_hard_{benchmark.version}" if isinstance(benchmark, ArenaHard) else "mt_bench"
    settings = {"llm": judge, "protocol": protocol, **{name: Input(name) for name in files}}
    return Use("eva_stages.evaluation.judge:JudgeAnswers", settings)


def _score(recipe: Recipe, benchmark: Benchmark, name: str, iteration: int, inputs: Mapping[str, Stage | Outside]) -> Stage:
    settings = {"benchmark": str(benchmark.model_dump()["kind"]), "seed": derive_seed(recipe.seed, "score")}
    if isinstance(benchmark, ArenaHard):
        settings["version"] = benchmark.version
    if isinstance(benchmark, AlpacaEval):
        settings["annotator"] = benchmark.annotator
    score = Use("eva_stages.evaluation.measures:score", settings)
    return FunctionStage(name, iteration, inputs, function=score, version=2)


def _harness(recipe: Recipe, benchmark: LMEval, name: str, iteration: int, inputs: Mapping[str, Stage | Outside]) -> Stage:
    settings = {**benchmark.model_dump(exclude={"kind", "runtime", "include"}), "seed": derive_seed(recipe.seed, "lm-eval") % 2**31}
    run = Use("eva_stages.evaluation.harness:score", settings, {"runtime": benchmark.runtime.model_dump()})
    return FunctionStage(name, iteration, inputs, function=run)


def _files_of(files: Files, *fields: str) -> Files:
    """The files of some fields; a second file of a field is called field.1."""
    return {name: file for name, file in files.items() if name.partition(".")[0] in fields}
