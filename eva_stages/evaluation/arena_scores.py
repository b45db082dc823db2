"""Scores of Arena-Hard files: win rate, official interval, style control, length, position bias, per category where there are several.

The models of one category are scored as one pool, which is what the official bootstrap resamples. The headline of v2.0 is its
hard-prompt category; the others are beside it under `categories`.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from eva_stages.core.errors import ConfigError
from eva_stages.core.verdicts import LABELS, Version
from eva_stages.evaluation.answers import Answer, token_length
from eva_stages.evaluation.arena_hard import (
    V2_HEADLINE,
    Battles,
    Judgment,
    battle_file,
    battles_of,
    parse_battle,
    parse_judgment,
)
from eva_stages.evaluation.arena_style import Controlled, style_control, unanswered
from eva_stages.evaluation.bradley_terry import win_rate_intervals, win_rates
from eva_stages.evaluation.judgment_files import Record, parse_records
from eva_stages.evaluation.statistics import question_values

Answered = Mapping[str, Mapping[str, Answer]]


def arena_version(records: Sequence[Record]) -> Version:
    """The benchmark's version of a file's rows."""
    return "v0.1" if "winner" in records[0].row else parse_judgment(records[0]).version


def arena_models(records: Sequence[Record], answered: Answered) -> list[tuple[dict[str, Any], pa.Table]]:
    """Each model's entry and values.

    Raises:
        ConfigError: for rows that cannot be scored, and for battles mixed with judgments.
    """
    raw = [record for record in records if "games" in record.row]
    if raw and len(raw) < len(records):
        raise ConfigError(
            [f"{records[0].path} and others: raw judgments and battles cannot be scored together; the same games would count twice"]
        )
    if not raw:
        return _of_battles(records, answered)
    return _of_judgments(parse_records(records, parse_judgment), answered)


def _of_battles(records: Sequence[Record], answered: Answered) -> list[tuple[dict[str, Any], pa.Table]]:
    try:
        battles, baseline = battle_file(parse_records(records, parse_battle))
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError([f"{records[0].path}: {error}"]) from error
    entries = _pool(battles, baseline, "v0.1", answered)
    return [({"model": model, "judge": None, **entry}, _values(battles, model, ())) for model, entry in entries.items()]


def _of_judgments(judgments: Sequence[Judgment], answered: Answered) -> list[tuple[dict[str, Any], pa.Table]]:
    if len({one.version for one in judgments}) > 1:
        raise ConfigError(["the judgments are of Arena-Hard v0.1 and of v2.0; score each version by itself"])
    judges = dict.fromkeys(one.judge for one in judgments)
    return [entry for judge in judges for entry in _of_one_judge(judge, [one for one in judgments if one.judge == judge], answered)]


def _of_one_judge(judge: str | None, judgments: Sequence[Judgment], answered: Answered) -> list[tuple[dict[str, Any], pa.Table]]:
    pools: dict[tuple[Version, str, str], list[Judgment]] = defaultdict(list)
    for one in judgments:
        pools[one.version, one.category, one.baseline].append(one)
    entries: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    values: dict[str, dict[str, pa.Table]] = defaultdict(dict)
    for (version, category, baseline), own in pools.items():
        battles = battles_of(own)
        figures = _pool(battles, baseline, version, answered)
        for model in dict.fromkeys(one.model for one in own):
            of_model = [one for one in own if one.model == model]
            name = category if category not in entries[model] else f"{category} against {baseline}"
            entries[model][name] = figures.get(model, _nothing(baseline)) | _judged(of_model)
            values[model][name] = _values(battles, model, [one.question for one in of_model])
    return [_headline(model, judge, found, values[model]) for model, found in entries.items()]


def _headline(
    model: str, judge: str | None, categories: dict[str, dict[str, Any]], values: dict[str, pa.Table]
) -> tuple[dict[str, Any], pa.Table]:
    name = V2_HEADLINE if V2_HEADLINE in categories else next(iter(categories))
    entry = {"model": model, "judge": judge, **categories[name], "category": name}
    return entry | ({"categories": categories} if len(categories) > 1 else {}), values[name]


def _pool(battles: Battles, baseline: str, version: Version, answered: Answered) -> dict[str, dict[str, Any]]:
    """Figures of each model of a pool, in percent."""
    if len(battles.outcome) == 0:
        return {}
    rates = win_rates(battles, baseline)
    intervals = win_rate_intervals(battles, baseline, version)
    style = _style(battles, baseline, version, answered)
    questions = Counter(model for model, _ in set(zip(battles.b, battles.question, strict=True)))
    return {
        model: {
            "score": 100 * rate,
            "ci": [100 * bound for bound in intervals[model]],
            "ci_kind": "official",
            "win_rate": 100 * rate,
            "baseline": baseline,
            "n": questions[model],
            "battles": int((battles.b == model).sum()),
            "avg_tokens": _tokens(answered.get(model)),
            **style.get(model, {}),
        }
        for model, rate in rates.items()
    }


def _nothing(baseline: str) -> dict[str, Any]:
    reason = "no game has a verdict"
    return {"score": None, "ci": None, "ci_kind": None, "win_rate": None, "baseline": baseline, "n": 0, "battles": 0, "reason": reason}


def _style(battles: Battles, baseline: str, version: Version, answered: Answered) -> dict[str, dict[str, Any]]:
    if not answered:
        return {}
    if (battles.a != baseline).any():
        return {model: {"style_controlled": None, "style_reason": "not every battle is against the baseline"} for model in set(battles.b)}
    if reason := unanswered(battles, answered):
        return {model: {"style_controlled": None, "style_reason": reason} for model in set(battles.b)}
    found, converged = style_control(battles, baseline, answered, version)
    return {
        model: {
            "style_controlled": _percent(one),
            **({"style_controlled_converged": _percent(converged[model])} if model in converged else {}),
        }
        for model, one in found.items()
    }


def _percent(controlled: Controlled) -> dict[str, Any]:
    interval = [100 * controlled.low, 100 * controlled.high]
    return {"score": 100 * controlled.score, "ci": interval, "coefficients": list(controlled.coefficients)}


def _judged(judgments: Sequence[Judgment]) -> dict[str, Any]:
    """How the judge did on one model.

    Returns:
        games and those without a verdict; `first_place`: share of games that the answer shown first won, 0.5 without bias;
        `consistent`: share of questions on which the same answer won in both orders, a tie in both included. The last two are over
        questions of which both games have a verdict.
    """
    labels = LABELS[judgments[0].version]
    games = [[labels[verdict][0] if verdict in labels else None for verdict in one.verdicts] for one in judgments]
    both = np.array([pair for pair in games if len(pair) == 2 and None not in pair], dtype=float)
    return {
        "games": sum(map(len, games)),
        "no_verdict": sum(pair.count(None) for pair in games),
        "first_place": float(both.mean()) if len(both) else None,
        "consistent": float(np.mean(both[:, 0] == 1 - both[:, 1])) if len(both) else None,
        "duplicates": len(judgments) - len({one.question for one in judgments}),
    }


def _values(battles: Battles, model: str, judged: Sequence[str]) -> pa.Table:
    """Win rate of each question in percent, battles as weight; a question whose games have no verdict is null."""
    outcomes: dict[str, list[float]] = {question: [] for question in judged}
    mine = battles.where((battles.b == model) | (battles.a == model))
    won = np.where(mine.b == model, mine.outcome, 1 - mine.outcome)
    for question, outcome in zip(mine.question, won, strict=True):
        outcomes.setdefault(question, []).append(outcome)
    means = {question: 100 * float(np.mean(found)) if found else None for question, found in outcomes.items()}
    return question_values(means, {question: len(found) for question, found in outcomes.items()})


def _tokens(answers: Mapping[str, Answer] | None) -> int | None:
    """Mean tokens of a model's answers, cut to a whole number as the official tool does."""
    return int(sum(map(token_length, answers.values())) / len(answers)) if answers else None
