"""What judging will cost, before a cent is spent: calls, tokens and money of every benchmark's judge.

The questions, the judge's prompts and the baseline's answers are at hand, so their tokens are counted; what the policy and the judge will
say is not, so there are two figures: at most (every text at its limit) and expected (texts as long as in the official files). A judge
that gives no verdict in Arena-Hard v0.1 is asked a second time, which neither figure has; the spending cap counts it.
"""

from dataclasses import dataclass
from typing import Any

from eva_stages.core.config.evaluation_config import AlpacaEval, ArenaHard, JudgedBenchmark, MTBench
from eva_stages.core.config.models_config import LiteLLMModel, Player
from eva_stages.core.kinds import BASELINE, JUDGE, QUESTIONS
from eva_stages.core.patches import import_litellm
from eva_stages.core.stage import Outside, Stage
from eva_stages.evaluation.benchmark_questions import Row, baseline_answers, question_rows
from eva_stages.evaluation.judge_prompts import arena_hard_cases, arena_hard_templates, mt_bench_cases, mt_bench_templates
from eva_stages.models.providers import token_rates

ANSWER = {"mt_bench": 300, "arena_hard": 430, "alpaca_eval": 390}
"""Tokens of an answer, as in the official files of strong models."""
JUDGMENT = {"mt_bench": 160, "arena_hard": 520, "alpaca_eval": 1}
"""Tokens of a judgment, as in the official files (gpt-4 and gpt-4-1106-preview)."""
SHOWN = {"mt_bench": 3, "arena_hard": 2, "alpaca_eval": 1}
"""How many times one of the policy's answers stands in the prompts of a question (MT-Bench: once in the first, two in the second)."""
ALPACA_TEMPLATE = 300
"""Tokens of AlpacaEval's prompt without instruction and outputs."""


@dataclass(frozen=True)
class JudgeCost:
    """Of one benchmark and one policy. Money is None where no price is known, 0 for judges that run here."""

    calls: int
    input_tokens: int
    output_tokens: int
    usd: float | None
    expected_input_tokens: int
    expected_output_tokens: int
    expected_usd: float | None


def judge_cost(benchmark: JudgedBenchmark, stages: tuple[Stage, ...]) -> JudgeCost:
    """The cost of judging one policy, from the files that the stages of the benchmark take."""
    kind = str(benchmark.model_dump()["kind"])
    questions = next(stage for stage in stages if stage.kind == QUESTIONS)
    rows = question_rows(kind, _file(questions, "questions"), _file(questions, "references") if "references" in questions.inputs else None)
    prompts = _prompts(benchmark, rows, stages)
    known = _tokens(prompts)
    calls = judge_calls(benchmark, len(rows))
    judge = benchmark.judge
    most = judge.model_dump().get("max_new_tokens", 0)
    answers = len(rows) * SHOWN[kind]
    rates = _rates(judge)

    def money(tokens_in: int, tokens_out: int) -> float | None:
        return None if rates is None else tokens_in * rates[0] + tokens_out * rates[1]

    at_most = known + answers * benchmark.max_new_tokens, calls * most
    expected = known + answers * min(ANSWER[kind], benchmark.max_new_tokens), calls * min(JUDGMENT[kind], most)
    return JudgeCost(calls, *at_most, money(*at_most), *expected, money(*expected))


def judge_calls(benchmark: JudgedBenchmark, questions: int) -> int:
    """Calls for one policy: two of a question (both turns, or both places of its answer), in AlpacaEval one."""
    return questions if isinstance(benchmark, AlpacaEval) else 2 * questions


def _rates(judge: Player) -> tuple[float, float] | None:
    if not isinstance(judge, LiteLLMModel):
        return 0.0, 0.0
    return token_rates(judge.model, judge.runtime.price.model_dump() if judge.runtime.price else None)


def _file(stage: Stage, name: str) -> Any:
    upstream = stage.inputs[name]
    assert isinstance(upstream, Outside)
    return upstream.path


def _prompts(benchmark: JudgedBenchmark, rows: list[Row], stages: tuple[Stage, ...]) -> list[str]:
    """Everything that the judge will be shown except the policy's answers."""
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
    told = [answers.get((row["category"], row["question_id"])) or answers.get((None, row["question_id"])) for row in rows]
    if isinstance(benchmark, ArenaHard):
        system = _file(judging, "system_prompts") if "system_prompts" in judging.inputs else None
        arena = arena_hard_templates(_file(judging, "prompts"), system)
        pairs = zip(rows, told, strict=True)
        shown = [case for row, text in pairs for case in arena_hard_cases(arena, row["category"], row["turns"][0], None, text)]
        return [message["content"] for case in shown for message in case.messages]
    return [f"{row['turns'][0]}{text or ''}{' m' * ALPACA_TEMPLATE}" for row, text in zip(rows, told, strict=True)]


def _tokens(texts: list[str]) -> int:
    """Tokens by the encoding of gpt-4, which stands for every judge's here."""
    litellm = import_litellm()
    return sum(litellm.token_counter(model="gpt-4", text=text) for text in texts)
