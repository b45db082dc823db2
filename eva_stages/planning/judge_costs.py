"""The cost of judging before it starts: calls, tokens and money of every benchmark's judge.

The questions, the judge's prompts and the baseline's responses are available, so their tokens are counted. The texts of the policy and the
judge are not, so there are two figures: at most (every text at its limit) and expected (lengths as in the official files). Neither
includes the second call of Arena-Hard v0.1 for a judgment without verdict; the spending cap does.
"""

from dataclasses import dataclass
from typing import Any

from eva_stages.core.config.evaluation_config import AlpacaEval, ArenaHard, JudgedBenchmark, MTBench
from eva_stages.core.config.models_config import LiteLLMModel, ModelChoice
from eva_stages.core.kinds import BASELINE, JUDGE, QUESTIONS
from eva_stages.core.patches import import_litellm
from eva_stages.core.stage import Outside, Stage
from eva_stages.evaluation.benchmark_questions import Row, baseline_answers, question_rows
from eva_stages.evaluation.judge_prompts import arena_hard_cases, arena_hard_templates, mt_bench_cases, mt_bench_templates
from eva_stages.models.providers import token_rates

ANSWER = {"mt_bench": 300, "arena_hard": 430, "alpaca_eval": 390}
"""Tokens of a response, as in the official files of strong models."""
JUDGMENT = {"mt_bench": 160, "arena_hard": 520, "alpaca_eval": 1}
"""Tokens of a judgment, as in the official files (gpt-4 and gpt-4-1106-preview)."""
TIMES_SHOWN = {"mt_bench": 3, "arena_hard": 2, "alpaca_eval": 1}
"""Responses of the policy in all prompts of a question (MT-Bench: one in the first, two in the second)."""
ALPACA_TEMPLATE = 300
"""Tokens of AlpacaEval's prompt without instruction and outputs."""


@dataclass(frozen=True)
class JudgeCost:
    """Cost of judging one policy on one benchmark; money is None without a known price, 0 for judges that run here."""

    calls: int
    input_tokens: int
    output_tokens: int
    usd: float | None
    expected_input_tokens: int
    expected_output_tokens: int
    expected_usd: float | None


def judge_cost(benchmark: JudgedBenchmark, stages: tuple[Stage, ...]) -> JudgeCost:
    """The cost of judging one policy, from the input files of the benchmark's stages."""
    kind = str(benchmark.model_dump()["kind"])
    questions = next(stage for stage in stages if stage.kind == QUESTIONS)
    rows = question_rows(kind, _file(questions, "questions"), _file(questions, "references") if "references" in questions.inputs else None)
    prompts = _prompts(benchmark, rows, stages)
    known_tokens = token_count(prompts)
    calls = judge_calls(benchmark, len(rows))
    judge = benchmark.judge
    reply_limit = judge.model_dump().get("max_new_tokens", 0)
    answers = len(rows) * TIMES_SHOWN[kind]
    most_tokens = known_tokens + answers * benchmark.max_new_tokens, calls * reply_limit
    expected_tokens = known_tokens + answers * min(ANSWER[kind], benchmark.max_new_tokens), calls * min(JUDGMENT[kind], reply_limit)
    return cost_of_calls(judge, calls, most_tokens, expected_tokens)


def cost_of_calls(judge: ModelChoice, calls: int, most_tokens: tuple[int, int], expected_tokens: tuple[int, int]) -> JudgeCost:
    """The cost of a judge's calls with (input, output) tokens at most, and as expected."""
    rates = _rates(judge)

    def money(tokens_in: int, tokens_out: int) -> float | None:
        return None if rates is None else tokens_in * rates[0] + tokens_out * rates[1]

    return JudgeCost(calls, *most_tokens, money(*most_tokens), *expected_tokens, money(*expected_tokens))


def sample_cost(cost: JudgeCost, calls: int) -> JudgeCost:
    """The cost of some of the calls, of average length."""
    share = calls / cost.calls
    return JudgeCost(
        calls,
        round(cost.input_tokens * share),
        round(cost.output_tokens * share),
        None if cost.usd is None else cost.usd * share,
        round(cost.expected_input_tokens * share),
        round(cost.expected_output_tokens * share),
        None if cost.expected_usd is None else cost.expected_usd * share,
    )


def judge_calls(benchmark: JudgedBenchmark, questions: int) -> int:
    """Calls for one policy: two per question (both turns, or both orders), in AlpacaEval one."""
    return questions if isinstance(benchmark, AlpacaEval) else 2 * questions


def _rates(judge: ModelChoice) -> tuple[float, float] | None:
    if not isinstance(judge, LiteLLMModel):
        return 0.0, 0.0
    return token_rates(judge.model, judge.runtime.price.model_dump() if judge.runtime.price else None)


def _file(stage: Stage, name: str) -> Any:
    upstream = stage.inputs[name]
    assert isinstance(upstream, Outside)
    return upstream.path


def _prompts(benchmark: JudgedBenchmark, rows: list[Row], stages: tuple[Stage, ...]) -> list[str]:
    """The judge's prompts without the policy's responses."""
    judging = next((stage for stage in stages if stage.kind == JUDGE), None)
    if judging is None:
        return []
    if isinstance(benchmark, MTBench):
        templates = mt_bench_templates(_file(judging, "prompts"))
        cases = [case for row in rows for case in mt_bench_cases(templates, row["turns"], row["references"], [None, None])]
        return [message["content"] for case in cases for message in case.messages]
    baseline = next((stage for stage in stages if stage.kind == BASELINE), None)
    kind = str(benchmark.model_dump()["kind"])
    files = [] if baseline is None else [_file(baseline, name) for name in sorted(baseline.inputs) if name.startswith("answers")]
    answers = {(category, question): text for (category, question), (_, text) in baseline_answers(kind, files).items()}
    baseline_texts = [answers.get((row["category"], row["question_id"])) or answers.get((None, row["question_id"])) for row in rows]
    if isinstance(benchmark, ArenaHard):
        system = _file(judging, "system_prompts") if "system_prompts" in judging.inputs else None
        arena = arena_hard_templates(_file(judging, "prompts"), system)
        pairs = zip(rows, baseline_texts, strict=True)
        games = [case for row, text in pairs for case in arena_hard_cases(arena, row["category"], row["turns"][0], None, text)]
        return [message["content"] for case in games for message in case.messages]
    return [f"{row['turns'][0]}{text or ''}{' m' * ALPACA_TEMPLATE}" for row, text in zip(rows, baseline_texts, strict=True)]


def token_count(texts: list[str]) -> int:
    """Tokens in the encoding of gpt-4, as an estimate for every judge."""
    litellm = import_litellm()
    return sum(litellm.token_counter(model="gpt-4", text=text) for text in texts)
