"""The score of one policy on one benchmark, from its judgments or checks.

An artifact holds three files: `rows.parquet`, one value per question, with which any two policies can be compared; `score.json`, the
figures with what to know about them (position bias, judgments without a verdict, failed calls); and `judgments.jsonl` in the benchmark's
official format, which `eva eval score` and the official tools read. Whatever was not judged is left out and counted.
"""

import json
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from eva_stages.core.runner import Context
from eva_stages.core.tables import read_table, write_rows
from eva_stages.evaluation.arena_hard import Judgment, Version, battle, battles_of, game_battles
from eva_stages.evaluation.bradley_terry import win_rate_intervals, win_rates
from eva_stages.evaluation.statistics import VALUES, estimate_values, question_values

CONFIDENCE = 0.95
PERCENT = 100.0
Row = dict[str, Any]


class Measured(NamedTuple):
    """Values per question, further figures, and judgments in the official format."""

    values: dict[str, float | None]
    weights: dict[str, float] | None
    figures: dict[str, Any]
    official: list[Row]


def score(context: Context, benchmark: str, seed: int, **settings: str) -> dict[str, Any]:
    """Write a benchmark's score.

    Inputs of the stage: questions, answers; judgments of judged benchmarks; checks of the others.
    """
    measured = MEASURES[benchmark](context, **settings)
    table = question_values(measured.values, measured.weights)
    estimate = estimate_values(table, CONFIDENCE, seed)
    scores = {"score": None if estimate is None else estimate.as_dict(), **measured.figures, **_lengths(context)}
    write_rows([table], VALUES, context.out)
    (context.out / "score.json").write_text(json.dumps(scores, indent=2, ensure_ascii=False) + "\n")
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in measured.official)
    if lines:
        (context.out / "judgments.jsonl").write_text(lines)
    return {"counts": {"not_judged": sum(value is None for value in measured.values.values())}, "scores": scores}


def _lengths(context: Context) -> dict[str, Any]:
    counts = read_table(context.inputs["answers"], ["token_counts"])["token_counts"].to_pylist()
    return {"answer_tokens": float(np.mean([count for turns in counts for count in turns])) if counts else None}


def _about_calls(judgments: list[Row], readable: Callable[[Row], bool]) -> dict[str, Any]:
    """What the judging was like: judgments, failed calls, texts without a verdict, money."""
    made = [row for row in judgments if row["failure"] is None]
    costs = [row["cost"] for row in judgments if row["cost"] is not None]
    return {
        "judge": next((row["judge"] for row in judgments), None),
        "judgments": len(judgments),
        "failed_calls": len(judgments) - len(made),
        "unreadable": sum(not readable(row) for row in made) / len(made) if made else None,
        "usd": sum(costs) if costs else None,
    }


def _judgments(context: Context) -> list[Row]:
    return read_table(context.inputs["judgments"]).to_pylist()


def _by_question(judgments: Iterable[Row]) -> dict[str, list[Row]]:
    grouped: dict[str, list[Row]] = {}
    for row in judgments:
        grouped.setdefault(row["question_id"], []).append(row)
    return grouped


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


# --- MT-Bench


def mt_bench(context: Context) -> Measured:
    """Ratings from 1 to 10; a question's value is the mean of its turns, weighed by how many are rated."""
    judgments = _judgments(context)
    grouped = _by_question(judgments)
    figures = {
        **{f"turn{turn}": _mean(row["score"] for row in judgments if row["game"] == turn) for turn in (1, 2)},
        "categories": {
            category: _mean(row["score"] for row in judgments if row["category"] == category)
            for category in dict.fromkeys(row["category"] for row in judgments)
        },
        **_about_calls(judgments, lambda row: row["score"] is not None),
    }
    values = {question: _mean(row["score"] for row in rows) for question, rows in grouped.items()}
    weights = {question: float(sum(row["score"] is not None for row in rows)) for question, rows in grouped.items()}
    return Measured(values, weights, figures, [_fastchat(row) for row in judgments if row["failure"] is None])


def _fastchat(row: Row) -> Row:
    identity = row["question_id"]
    return {
        "question_id": int(identity) if identity.isdigit() else identity,
        "model": row["model"],
        "judge": [row["judge"], row["template"]],
        "user_prompt": row["prompt"],
        "judgment": row["raw"],
        "score": -1 if row["score"] is None else row["score"],
        "turn": row["game"],
    }


# --- Arena-Hard


def arena_hard(context: Context, version: Version) -> Measured:
    """Win rate against the baseline in percent, a strong verdict being three battles; the official interval beside eva's own."""
    judgments = _judgments(context)
    grouped = {question: sorted(rows, key=lambda row: row["game"]) for question, rows in _by_question(judgments).items()}
    values: dict[str, float | None] = {}
    weights: dict[str, float] = {}
    whole: list[Judgment] = []
    for question, rows in grouped.items():
        verdicts = tuple(row["verdict"] for row in rows)
        first = rows[0]
        whole.append(Judgment(version, question, first["category"], first["model"], "baseline", verdicts))
        battles = game_battles(verdicts, version)
        weights[question] = float(sum(one.weight for one in battles))
        values[question] = PERCENT * sum(one.outcome * one.weight for one in battles) / weights[question] if battles else None
    figures = {
        "baseline": ", ".join(dict.fromkeys(row["baseline"] for row in judgments)),
        "official": {category: _official(whole, category, version) for category in dict.fromkeys(one.category for one in whole)},
        **position_bias([tuple(_first_place(row, version) for row in rows) for rows in grouped.values()]),
        **_about_calls(judgments, lambda row: battle(row["verdict"], row["game"], version) is not None),
    }
    return Measured(values, weights, figures, [_arena_file(rows, version) for rows in grouped.values()])


def _official(judgments: list[Judgment], category: str, version: Version) -> Row | None:
    """The official point score and interval of a category, in percent."""
    battles = battles_of([one for one in judgments if one.category == category])
    if not len(battles.outcome):
        return None
    ((model, rate),) = win_rates(battles, "baseline").items()
    low, high = win_rate_intervals(battles, "baseline", version)[model]
    return {"value": PERCENT * rate, "low": PERCENT * low, "high": PERCENT * high}


def _first_place(row: Row, version: Version) -> float | None:
    """1 = assistant A won the game, whoever that was."""
    outcome = battle(row["verdict"], 1, version)
    return None if outcome is None else outcome.outcome


def position_bias(games: Iterable[tuple[float | None, ...]]) -> Row:
    """How much a judge likes the first place, over questions of which both games have a verdict.

    Args:
        games: per question what assistant A got in both games: 1, 0.5 or 0.

    Returns:
        `first_place`: share of games that the first answer won, 0.5 without bias; `consistent`: share of questions on which the same
        answer won in both orders, ties in both included.
    """
    both = [pair for pair in games if len(pair) == 2 and None not in pair]
    if not both:
        return {"first_place": None, "consistent": None}
    array = np.array(both, dtype=float)
    return {"first_place": float(array.mean()), "consistent": float(np.mean(array[:, 0] == 1 - array[:, 1]))}


def _arena_file(rows: list[Row], version: Version) -> Row:
    """A question's row in the official file: of 2024 for v0.1, of today for v2.0."""
    first = rows[0]
    if version == "v0.1":
        games: list[Any] = [{"user_prompt": row["prompt"], "judgment": row["raw"], "score": row["verdict"]} for row in rows]
        return {"question_id": first["question_id"], "model": first["model"], "judge": first["judge"], "games": games}
    games = [None if row["failure"] else {"score": row["verdict"], "judgment": {"answer": row["raw"]}} for row in rows]
    named = {name: first[name] for name in ("category", "judge", "model", "baseline")}
    return {"uid": first["question_id"], **named, "games": games}


# --- AlpacaEval


def alpaca_eval(context: Context, annotator: str) -> Measured:
    """Win rate against the reference outputs in percent: the mean preference."""
    judgments = _judgments(context)
    answers = {row["prompt_id"]: row["responses"][0] for row in read_table(context.inputs["answers"]).to_pylist()}
    references = {row["prompt_id"]: row["responses"][0] for row in read_table(context.inputs["baseline"]).to_pylist()}
    questions = {row["prompt_id"]: row["turns"][0] for row in read_table(context.inputs["questions"]).to_pylist()}
    values = {row["question_id"]: None if row["score"] is None else PERCENT * (row["score"] - 1) for row in judgments}
    shown = [row for row in judgments if row["score"] is not None and row["template"] == annotator]
    figures = {
        "baseline": next((row["baseline"] for row in judgments), None),
        "first_place": _mean(row["score"] - 1 if row["game"] else 2 - row["score"] for row in shown),
        **_about_calls(judgments, lambda row: row["score"] is not None),
    }
    official = [
        {
            "instruction": questions[row["prompt_id"]],
            "dataset": row["category"],
            "output_1": references[row["prompt_id"]],
            "generator_1": row["baseline"],
            "output_2": answers[row["prompt_id"]] or "",
            "generator_2": row["model"],
            "annotator": annotator,
            "preference": row["score"],
        }
        for row in judgments
    ]
    return Measured(values, None, figures, official)


# --- checked answers


def gsm8k(context: Context) -> Measured:
    """Share of right final answers, in percent."""
    return _checked(context, lambda share: share)


def ifeval(context: Context) -> Measured:
    """Share of prompts all of whose instructions are followed, in percent (IFEval's strict prompt-level accuracy), and of instructions."""
    measured = _checked(context, lambda share: float(share == 1))
    asked = {
        row["question_id"]: (row["prompt_id"], len(json.loads(row["reference"])["instruction_id_list"]))
        for row in read_table(context.inputs["questions"]).to_pylist()
    }
    shares = {row["prompt_id"]: row["rewards"][0] for row in read_table(context.inputs["checks"]).to_pylist()}
    known = [(shares[prompt], count) for prompt, count in asked.values() if shares[prompt] is not None]
    followed = sum(share * count for share, count in known) / sum(count for _, count in known) if known else None
    return measured._replace(figures={"instructions": None if followed is None else PERCENT * followed})


def _checked(context: Context, value: Callable[[float], float]) -> Measured:
    questions = read_table(context.inputs["questions"], ["prompt_id", "question_id"]).to_pylist()
    rewards = {row["prompt_id"]: row["rewards"][0] for row in read_table(context.inputs["checks"]).to_pylist()}
    values = {
        row["question_id"]: None if rewards[row["prompt_id"]] is None else PERCENT * value(rewards[row["prompt_id"]]) for row in questions
    }
    return Measured(values, None, {}, [])


MEASURES: dict[str, Callable[..., Measured]] = {
    "mt_bench": mt_bench,
    "arena_hard": arena_hard,
    "alpaca_eval": alpaca_eval,
    "gsm8k": gsm8k,
    "ifeval": ifeval,
}
