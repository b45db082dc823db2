"""The public benchmarks as stages: questions, answers, judgments or checks, score; for the base policy and for every iteration alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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
from eva_stages.core.fingerprint import derive_seed, tree_digest
from eva_stages.core.homes import HOMES, arena_hard_answers, find_file
from eva_stages.core.kinds import ANSWER, BASE, BASELINE, CHECK, JUDGE, QUESTIONS, SCORE, Side, stage_name
from eva_stages.core.named_functions import chosen_function
from eva_stages.core.stage import RUN, FunctionStage, Input, Outside, RowStage, Stage, Use
from eva_stages.evaluation.benchmark_questions import baseline_answers, question_rows
from eva_stages.evaluation.judge_prompts import arena_hard_templates, mt_bench_templates, needs_system_prompts
from eva_stages.models.choosing import player, policy_generator
from pipelines.response_stages import empty, judging_limits, keep_thoughts, unscored
from pipelines.seeds import sampling_seed

BASELINES = {"v0.1": ("gpt-4-0314",), "v2.0": ("o3-mini-2025-01-31", "gemini-2.0-flash-001")}
"""Official baselines of Arena-Hard; of two, the second answers creative writing."""
ROWS_PER_PART = 4
"""Questions between two durable writes of a paid judge's judgments, in times what is under way at once: every call is in the journal
anyway, and the end of each part waits for its slowest call."""


@dataclass(frozen=True)
class Measured:
    """The stages of one benchmark and one policy."""

    stages: tuple[Stage, ...]
    answers: Stage | None = None


def measured(
    recipe: Recipe,
    benchmark: Benchmark | LMEval,
    side: Side,
    iteration: int,
    policy: Stage | Outside,
    first: Outside,
    base: Stage | None,
    place: str,
) -> Measured:
    """The stages that measure a policy, questions first and score last.

    Args:
        side: `base` for the base policy, `eval` for that of an iteration.
        first: the base policy, which judges where a recipe lets the policy judge: all policies have the same judge.
        base: the base policy's answers, where it is already measured.
        place: the benchmark's place in the recipe, for errors.
    """
    if isinstance(benchmark, LMEval):
        return Measured((_harness(recipe, benchmark, stage_name(SCORE, benchmark_name(benchmark), side), iteration, policy),))
    name = benchmark_name(benchmark)
    questions = _questions(benchmark, name, place)
    score_name = stage_name(SCORE, name, side)
    answers = _answers(recipe, benchmark, stage_name(ANSWER, name, side), iteration, questions, policy)
    if isinstance(benchmark, GSM8K | IFEval | CustomBenchmark):
        checked = _checked(recipe, benchmark, stage_name(CHECK, name, side), iteration, questions, answers, place)
        score = _score(recipe, benchmark, score_name, iteration, {"questions": questions, "answers": answers, "checks": checked}, place)
        return Measured((questions, answers, checked, score), answers)
    before: tuple[Stage, ...] = (questions, answers)
    inputs: dict[str, Stage | Outside] = {"questions": questions, "answers": answers}
    if isinstance(benchmark, ArenaHard | AlpacaEval):
        if benchmark.baseline == BASE and base is None:
            return Measured(before, answers)
        baseline = base if benchmark.baseline == BASE and base is not None else _baseline(benchmark, name, questions, place)
        before, inputs = (questions, baseline, answers), {**inputs, "baseline": baseline}
    assert isinstance(benchmark, JudgedBenchmark)
    judged = _judged(recipe, benchmark, stage_name(JUDGE, name, side), iteration, inputs, first, place)
    score = _score(recipe, benchmark, score_name, iteration, {**inputs, "judgments": judged}, place)
    return Measured((*before, judged, score), answers)


def _questions(benchmark: Benchmark, name: str, place: str) -> Stage:
    kind = str(benchmark.model_dump()["kind"])
    home = {"arena-hard-v0.1": "arena-hard", "alpaca-eval": "alpaca-eval-outputs"}.get(name, name)
    inputs: dict[str, Stage | Outside] = {"questions": find_file(benchmark.questions, HOMES.get(home), f"{place}.questions")}
    if isinstance(benchmark, MTBench):
        inputs["references"] = find_file(benchmark.references, HOMES["mt-bench-references"], f"{place}.references")
    load = Use("eva_stages.evaluation.benchmark_questions:load_questions", {"benchmark": kind})
    return FunctionStage(stage_name(QUESTIONS, name), 0, inputs, function=load)


def _baseline(benchmark: ArenaHard | AlpacaEval, name: str, questions: Stage, place: str) -> Stage:
    files = baseline_files(benchmark, f"{place}.baseline")
    inputs: dict[str, Stage | Outside] = {f"answers_{index}": file for index, file in enumerate(files)}
    load = Use("eva_stages.evaluation.benchmark_questions:load_baseline", {"benchmark": benchmark.kind})
    return FunctionStage(stage_name(BASELINE, name), 0, {"questions": questions, **inputs}, function=load)


def baseline_files(benchmark: ArenaHard | AlpacaEval, place: str) -> list[Outside]:
    """The files with the baseline's answers: those given, or the published ones of the model named."""
    given = benchmark.baseline
    if isinstance(benchmark, AlpacaEval):
        return [find_file(given, HOMES["alpaca-eval-outputs"], place)]
    if given is not None and Path(given).expanduser().is_file():
        return [find_file(given, None, place)]
    models = (given,) if given is not None else BASELINES[benchmark.version]
    return [find_file(None, arena_hard_answers(benchmark.version, model), place) for model in models]


def _answers(recipe: Recipe, benchmark: Benchmark, name: str, iteration: int, questions: Stage, policy: Stage | Outside) -> Stage:
    own = {} if benchmark.temperature is None else {"temperature": benchmark.temperature}
    generator, needed = policy_generator(recipe, policy, max_new_tokens=benchmark.max_new_tokens, **own)
    by_category = MTBench.TEMPERATURES if isinstance(benchmark, MTBench) and benchmark.temperature is None else None
    sampled = generator if by_category is None else Use(generator.target)
    seed = sampling_seed(recipe, sampled, "benchmark-answer")
    step = Use(
        "eva_stages.evaluation.answering:AnswerTurns",
        {
            "llm": generator,
            **seed,
            "temperatures": by_category,
            "keep_thoughts": keep_thoughts(recipe),
        },
    )
    return RowStage(
        name,
        iteration,
        {"questions": questions, **needed},
        version=2,
        sources=("questions",),
        steps=(step,),
        schema="responses",
        required=("responses",),
        limits=(empty(recipe),),
        rows_per_part=recipe.runtime.rows_per_part,
    )


def _checked(
    recipe: Recipe,
    benchmark: GSM8K | IFEval | CustomBenchmark,
    name: str,
    iteration: int,
    questions: Stage,
    answers: Stage,
    place: str,
) -> Stage:
    custom = {"in_unit": True} if isinstance(benchmark, CustomBenchmark) else {}
    reward = Use("eva_stages.models.rewards:VerifierReward", {"function": chosen_function(benchmark.score, f"{place}.score"), **custom})
    return RowStage(
        name,
        iteration,
        {"questions": questions, "answers": answers},
        sources=("questions", "answers"),
        steps=(Use("eva_stages.models.rewards:RewardResponses", {"reward": reward}),),
        schema="rewards",
        required=("rewards",),
        limits=(unscored(recipe),),
        rows_per_part=recipe.runtime.rows_per_part,
    )


def _judged(
    recipe: Recipe,
    benchmark: JudgedBenchmark,
    name: str,
    iteration: int,
    inputs: Mapping[str, Stage | Outside],
    first: Outside,
    place: str,
) -> Stage:
    judge, needed = player(benchmark.judge, recipe, first, "judge", RUN)
    step, files = _judging(benchmark, judge, place)
    rows = recipe.runtime.rows_per_part
    if isinstance(benchmark.judge, LiteLLMModel):
        rows = max(rows, ROWS_PER_PART * benchmark.judge.runtime.concurrency)
    return RowStage(
        name,
        iteration,
        {**inputs, **files, **needed},
        version=3,
        sources=tuple(inputs),
        prefixes={"baseline": "baseline_"},
        steps=(step,),
        schema="judgments",
        required=("question_id", "game"),
        limits=judging_limits(recipe, f"{place}.judge"),
        rows_per_part=rows,
    )


def _judging(benchmark: JudgedBenchmark, judge: Use, place: str) -> tuple[Use, dict[str, Outside]]:
    """The judging step, and the official files it reads."""
    if isinstance(benchmark, AlpacaEval):
        return Use("eva_stages.evaluation.annotating:AnnotatePairs", {"llm": judge, "annotator": benchmark.annotator}), {}
    judging = "eva_stages.evaluation.judge:JudgeAnswers"
    if isinstance(benchmark, MTBench):
        files = {"prompts": find_file(benchmark.prompts, HOMES["mt-bench-prompts"], f"{place}.prompts")}
        return Use(judging, {"llm": judge, "protocol": "mt_bench", "prompts": Input("prompts")}), files
    assert isinstance(benchmark, ArenaHard)
    home = "arena-hard-prompts" if benchmark.version == "v0.1" else "arena-hard-v2.0-prompts"
    files = {"prompts": find_file(benchmark.prompts, HOMES[home], f"{place}.prompts")}
    settings = {"llm": judge, "protocol": f"arena_hard_{benchmark.version}", "prompts": Input("prompts")}
    if needs_system_prompts(files["prompts"].path):
        system = find_file(benchmark.system_prompts, HOMES["arena-hard-system-prompts"], f"{place}.system_prompts")
        files, settings = {**files, "system_prompts": system}, {**settings, "system_prompts": Input("system_prompts")}
    return Use(judging, settings), files


def _score(recipe: Recipe, benchmark: Benchmark, name: str, iteration: int, inputs: Mapping[str, Stage | Outside], place: str) -> Stage:
    settings = {"benchmark": str(benchmark.model_dump()["kind"]), "seed": derive_seed(recipe.seed, "score")}
    if isinstance(benchmark, ArenaHard):
        settings["version"] = benchmark.version
    files: dict[str, Outside] = {}
    if isinstance(benchmark, AlpacaEval):
        settings["annotator"] = benchmark.annotator
        files = package_files(benchmark, place)
    score = Use("eva_stages.evaluation.measures:score", settings)
    return FunctionStage(name, iteration, {**inputs, **files}, function=score, version=2)


def package_files(benchmark: AlpacaEval, place: str) -> dict[str, Outside]:
    """The two files of the alpaca_eval package: those given, and for the official questions those of the Hub.

    Questions of one's own are not those of the package's fit, so nothing is fetched for them, and without files given the
    length-controlled win rate is null. The recipe alone decides which files there are.
    """
    files = {"gamed": benchmark.gamed, "difficulty": benchmark.difficulty}
    needed = {name: given for name, given in files.items() if given is not None or benchmark.questions is None}
    return {name: find_file(given, HOMES[f"alpaca-eval-{name}"], f"{place}.{name}") for name, given in needed.items()}


def _harness(recipe: Recipe, benchmark: LMEval, name: str, iteration: int, policy: Stage | Outside) -> Stage:
    settings = {**benchmark.model_dump(exclude={"kind", "runtime", "include"}), "seed": derive_seed(recipe.seed, "lm-eval") % 2**31}
    run = Use("eva_stages.evaluation.harness:score", settings, {"runtime": benchmark.runtime.model_dump()})
    inputs: dict[str, Stage | Outside] = {"policy": policy}
    if benchmark.include is not None:
        folder = Path(benchmark.include).expanduser()
        inputs["include"] = Outside(folder.name, folder, tree_digest(folder))
    return FunctionStage(name, iteration, inputs, function=run)


def check_files(benchmark: Benchmark, stages: Sequence[Stage]) -> None:
    """Read every official file that the stages of a benchmark take.

    Raises:
        DataError: if one is not what it should be.
    """
    for stage in stages:
        files = {name: upstream.path for name, upstream in stage.inputs.items() if isinstance(upstream, Outside)}
        if stage.kind == QUESTIONS:
            question_rows(str(benchmark.model_dump()["kind"]), files["questions"], files.get("references"))
        elif stage.kind == BASELINE:
            baseline_answers(str(benchmark.model_dump()["kind"]), [path for name, path in files.items() if name.startswith("answers")])
        elif "prompts" in files and isinstance(benchmark, MTBench):
            mt_bench_templates(files["prompts"])
        elif "prompts" in files:
            arena_hard_templates(files["prompts"], files.get("system_prompts"))
