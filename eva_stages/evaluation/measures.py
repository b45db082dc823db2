"""The score of one policy on one benchmark, from its judgments or checks.

The artifact holds `rows.parquet`, one value per question, by which any two policies can be compared; `judgments.jsonl` and
`answers.jsonl` in the benchmark's official formats, which `eva eval score` and the official tools read; and `score.json` with eva's own
estimate and interval over questions (`score`), the figures by the official rules (`official`), and figures of the judging (`judging`).
Questions without a judgment are left out and counted; they are neither losses nor ties.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from eva_stages.core.runner import Context
from eva_stages.core.tables import mean_tokens, read_table, write_rows
from eva_stages.core.verdicts import preference_of_outcome
from eva_stages.evaluation.alpaca import HubFiles
from eva_stages.evaluation.answers import by_model, parse_answer
from eva_stages.evaluation.file_scores import score_models
from eva_stages.evaluation.judgment_files import parse_records, read_records
from eva_stages.evaluation.statistics import VALUES, estimate_values, question_values
from eva_stages.models.instructions import instruction_loosely

CONFIDENCE = 0.95
PERCENT = 100.0
JUDGMENTS, ANSWERS = "judgments.jsonl", "answers.jsonl"
ANSWER_KINDS = ("FastChat or Arena-Hard answers", "Arena-Hard answers", "AlpacaEval model outputs")
Row = dict[str, Any]


class Measurement(NamedTuple):
    """Values per question, the official figures, and the figures of the judging."""

    values: pa.Table
    official: Row
    judging: Row | None


def score(context: Context, benchmark: str, seed: int, **settings: str) -> dict[str, Any]:
    """Write a benchmark's score.

    Inputs of the stage: questions, answers; judgments (and baseline) of judged benchmarks, checks of the others; for AlpacaEval,
    where available, gamed and difficulty, the package's two files.
    """
    context.artifact.mkdir(parents=True)
    measurement = MEASURES[benchmark](context, **settings)
    estimate = estimate_values(measurement.values, CONFIDENCE, seed)
    scores = {
        "score": None if estimate is None else asdict(estimate),
        "official": measurement.official,
        "judging": measurement.judging,
        "answer_tokens": mean_tokens(context.inputs["answers"]),
    }
    write_rows([measurement.values], VALUES, context.artifact)
    (context.artifact / "score.json").write_text(json.dumps(scores, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return {"counts": {"not_judged": measurement.values["value"].null_count}, "scores": scores}


def _rows(context: Context, name: str) -> list[Row]:
    return read_table(context.inputs[name]).to_pylist()


def _write_lines(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


# --- judged benchmarks


def _judged_measurement(
    context: Context,
    bench: str,
    judgments: list[Row],
    official_judgments: list[Row],
    answers: list[Row],
    hub_files: HubFiles | None = None,
) -> Measurement:
    """Write the official files and score them by the official rules.

    Args:
        judgments: rows of the `judgments` schema, for the figures of the judging.
        official_judgments, answers: rows of the official files.
    """
    judgments_file = _write_lines(context.artifact / JUDGMENTS, official_judgments)
    answers_file = _write_lines(context.artifact / ANSWERS, answers)
    # AlpacaEval needs responses for the official order only, and the judgments are in that order already
    answers_files = [] if bench == "alpaca-eval" else [answers_file]
    answers_by_model = by_model(parse_records(read_records(answers_files, ANSWER_KINDS, bench), parse_answer))
    (model,), _ = score_models(bench, [judgments_file], answers_by_model, hub_files=hub_files)
    assert model.values is not None
    return Measurement(model.values, model.entry, _about_judging(judgments, model.entry))


def _about_judging(judgments: list[Row], entry: Row) -> Row:
    """The judge, its calls and their cost, and how many of its replies have no verdict."""
    replies = [row for row in judgments if row["failure"] is None]
    missing = len(judgments) - len(replies)
    failed_calls = sum(row["failure"] is not None and row["attempts"] > 0 for row in judgments)
    no_verdict = sum(row["outcome"] is None for row in replies)
    costs = [row["cost"] for row in judgments if row["cost"] is not None]
    games = [row for row in replies if row["attempts"] and row["baseline"] is not None and row["outcome"] is not None]
    first = float(np.mean([row["outcome"] if row["game"] else 1 - row["outcome"] for row in games])) if games else None
    return {
        "judge": judgments[0]["judge"],
        "judgments": len(judgments),
        "failed_calls": failed_calls,
        "unanswered": missing - failed_calls,
        "no_verdict": no_verdict,
        "parse_failure_rate": no_verdict / len(replies) if replies else None,
        "first_place": entry.get("first_place", first),
        "consistent": entry.get("consistent"),
        "usd": sum(costs) if costs else None,
    }


def mt_bench(context: Context) -> Measurement:
    """Ratings from 1 to 10 of both turns."""
    judgments = _rows(context, "judgments")
    official_judgments = [
        {
            "question_id": _number(row["question_id"]),
            "model": row["model"],
            "judge": [row["judge"], row["template"]],
            "user_prompt": row["prompt"],
            "judgment": row["raw"],
            "score": -1 if row["rating"] is None else row["rating"],
            "turn": row["game"],
        }
        for row in judgments
    ]
    return _judged_measurement(context, "mt-bench", judgments, official_judgments, _choices(context, "answers"))


def arena_hard(context: Context, version: str) -> Measurement:
    """Win rate against the baseline in percent; files in the format of 2024 for v0.1, in the current format for v2.0."""
    judgments = _rows(context, "judgments")
    games: dict[str, list[Row]] = {}
    for row in judgments:
        games.setdefault(row["question_id"], []).append(row)
    old = version == "v0.1"
    official_judgments = [_of_2024(rows) if old else _of_today(rows) for rows in games.values()]
    answers = [row for name in ("answers", "baseline") for row in (_choices if old else _messages)(context, name)]
    return _judged_measurement(context, "arena-hard", judgments, official_judgments, answers)


def _of_2024(rows: list[Row]) -> Row:
    games = [{"user_prompt": row["prompt"], "judgment": row["raw"], "score": row["verdict"]} for row in rows]
    first = rows[0]
    return {**{name: first[name] for name in ("question_id", "model", "judge", "baseline")}, "games": games}


def _of_today(rows: list[Row]) -> Row:
    games = [None if row["failure"] else {"score": row["verdict"], "judgment": {"answer": row["raw"]}} for row in rows]
    first = rows[0]
    return {"uid": first["question_id"], **{name: first[name] for name in ("category", "judge", "model", "baseline")}, "games": games}


def alpaca_eval(context: Context, annotator: str) -> Measurement:
    """Raw and length-controlled win rate against the reference outputs, in percent."""
    judgments = _rows(context, "judgments")
    questions = {row["prompt_id"]: row["turns"][0] for row in _rows(context, "questions")}
    outputs, references = (
        {row["prompt_id"]: row["responses"][0] or "" for row in _rows(context, name)} for name in ("answers", "baseline")
    )
    official_judgments = [
        {
            "instruction": questions[row["prompt_id"]],
            "dataset": row["category"],
            "output_1": references[row["prompt_id"]],
            "generator_1": row["baseline"],
            "output_2": outputs[row["prompt_id"]],
            "generator_2": row["model"],
            "annotator": annotator,
            "judge": row["judge"],
            "preference": preference_of_outcome(row["outcome"]),
            "raw_completion": row["raw"],
        }
        for row in judgments
    ]
    answers = [
        {"dataset": row["dataset"], "instruction": row["instruction"], "output": row["output_2"], "generator": row["generator_2"]}
        for row in official_judgments
    ]
    files = HubFiles(context.inputs.get("gamed"), context.inputs.get("difficulty"))
    return _judged_measurement(context, "alpaca-eval", judgments, official_judgments, answers, files)


def _choices(context: Context, name: str) -> list[Row]:
    """Responses in the format of FastChat and of Arena-Hard in 2024."""
    ids = {row["prompt_id"]: row["question_id"] for row in _rows(context, "questions")}
    return [
        {
            "question_id": _number(ids[row["prompt_id"]]),
            "answer_id": row["prompt_id"],
            "model_id": row["generator"],
            "choices": [{"index": 0, "turns": [text or "" for text in row["responses"]]}],
        }
        for row in _rows(context, name)
    ]


def _messages(context: Context, name: str) -> list[Row]:
    """Responses in the current format of Arena-Hard."""
    questions = {row["prompt_id"]: row for row in _rows(context, "questions")}
    rows = []
    for row in _rows(context, name):
        question = questions[row["prompt_id"]]
        user = {"role": "user", "content": question["turns"][0]}
        answer = {"role": "assistant", "content": {"answer": row["responses"][0] or ""}}
        rows.append({"uid": question["question_id"], "model": row["generator"], "messages": [user, answer]})
    return rows


def _number(question: str) -> int | str:
    """MT-Bench's question ids are numbers."""
    return int(question) if question.isdecimal() else question


# --- checked responses


def checks(context: Context) -> Measurement:
    """Mean of the checks, in percent: GSM8K's share of correct final answers, or a custom benchmark's score."""
    return _checked_measurement(context, lambda share: share, {})


def ifeval(context: Context) -> Measurement:
    """Share of prompts all of whose instructions are followed, in percent, and of instructions; strictly, and beside it loosely."""
    references = {row["prompt_id"]: row["reference"] for row in _rows(context, "questions")}
    responses = {row["prompt_id"]: row["responses"][0] or "" for row in _rows(context, "answers")}
    shares = [(row["prompt_id"], row["rewards"][0]) for row in _rows(context, "checks") if row["rewards"][0] is not None]
    counts = [len(json.loads(references[prompt_id])["instruction_id_list"]) for prompt_id, _ in shares]
    loose = [instruction_loosely(responses[prompt_id], references[prompt_id]) for prompt_id, _ in shares]
    figures = {
        "instructions": _mean_percent([share for _, share in shares], counts),
        "loose": _mean_percent([float(share == 1) for share in loose]),
        "loose_instructions": _mean_percent(loose, counts),
    }
    return _checked_measurement(context, lambda share: float(share == 1), figures)


def _mean_percent(shares: Sequence[float], weights: Sequence[int] | None = None) -> float | None:
    return PERCENT * float(np.average(shares, weights=weights)) if shares else None


def _checked_measurement(context: Context, value: Callable[[float], float], figures: Row) -> Measurement:
    shares = {row["prompt_id"]: row["rewards"][0] for row in _rows(context, "checks")}
    ids = {row["question_id"]: shares[row["prompt_id"]] for row in _rows(context, "questions")}
    values = {question: None if share is None else PERCENT * value(share) for question, share in ids.items()}
    known_values = [value for value in values.values() if value is not None]
    return Measurement(
        question_values(values), {"score": float(np.mean(known_values)) if known_values else None, "n": len(known_values), **figures}, None
    )


MEASURES: dict[str, Callable[..., Measurement]] = {
    "mt_bench": mt_bench,
    "arena_hard": arena_hard,
    "alpaca_eval": alpaca_eval,
    "gsm8k": checks,
    "custom": checks,
    "ifeval": ifeval,
}
