"""Scores of Arena-Hard files: win rate, official interval, style control, length, position bias; by category where there are several.

The models of a category are scored as one pool, because the official bootstrap resamples the pool. The main figure of v2.0 is its
hard-prompt category; the others are under `categories`.
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
from eva_stages.evaluation.arena_style import ControlledRate, missing_answer, style_control
from eva_stages.evaluation.bradley_terry import win_rate_intervals, win_rates
from eva_stages.evaluation.judgment_files import Record, parse_records
from eva_stages.evaluation.statistics import mean_values

AnswersByModel = Mapping[str, Mapping[str, Answer]]


def arena_version(records: Sequence[Record]) -> Version:
    """The benchmark's version of a file's rows."""
    return "v0.1" if "winner" in records[0].row else parse_judgment(records[0]).version


def arena_models(records: Sequence[Record], answers: AnswersByModel) -> list[tuple[dict[str, Any], pa.Table]]:
    """Each model's entry and values.

    Raises:
        ConfigError: for rows that cannot be scored, and for battles mixed with judgments.
    """
    raw = [record for record in records if "games" in record.row]
    if raw and len(raw) < len(records):
        raise ConfigError([f"{records[0].path} and others: raw judgments and battles count the same games twice; score them separately"])
    return _of_judgments(parse_records(records, parse_judgment), answers) if raw else _of_battles(records, answers)


def _of_battles(records: Sequence[Record], answers: AnswersByModel) -> list[tuple[dict[str, Any], pa.Table]]:
    rows = parse_records(records, parse_battle)
    try:
        battles, baseline = battle_file(rows)
    except ValueError as error:
        raise ConfigError([f"{records[0].path}: {error}"]) from error
    entries = _pool(battles, baseline, "v0.1", answers)
    return [({"model": model, "judge": None, **entry}, _values(battles, model, ())) for model, entry in entries.items()]


def _of_judgments(judgments: Sequence[Judgment], answers: AnswersByModel) -> list[tuple[dict[str, Any], pa.Table]]:
    if len({judgment.version for judgment in judgments}) > 1:
        raise ConfigError(["the judgments are of Arena-Hard v0.1 and of v2.0; score each version separately"])
    by_judge: dict[str | None, list[Judgment]] = defaultdict(list)
    for judgment in judgments:
        by_judge[judgment.judge].append(judgment)
    return [entry for judge, own_judgments in by_judge.items() for entry in _of_one_judge(judge, own_judgments, answers)]


def _of_one_judge(judge: str | None, judgments: Sequence[Judgment], answers: AnswersByModel) -> list[tuple[dict[str, Any], pa.Table]]:
    pools: dict[tuple[Version, str, str], list[Judgment]] = defaultdict(list)
    for judgment in judgments:
        pools[judgment.version, judgment.category, judgment.baseline].append(judgment)
    entries: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    values: dict[str, dict[str, pa.Table]] = defaultdict(dict)
    for (version, category, baseline), pool in pools.items():
        battles = battles_of(pool)
        figures = _pool(battles, baseline, version, answers)
        for model in dict.fromkeys(judgment.model for judgment in pool):
            model_judgments = [judgment for judgment in pool if judgment.model == model]
            name = category if category not in entries[model] else f"{category} against {baseline}"
            entries[model][name] = figures.get(model, _empty_entry(baseline)) | _judging_figures(model_judgments)
            values[model][name] = _values(battles, model, [judgment.question for judgment in model_judgments])
    return [_headline(model, judge, model_entries, values[model]) for model, model_entries in entries.items()]


def _headline(
    model: str, judge: str | None, categories: dict[str, dict[str, Any]], values: dict[str, pa.Table]
) -> tuple[dict[str, Any], pa.Table]:
    name = V2_HEADLINE if V2_HEADLINE in categories else next(iter(categories))
    entry = {"model": model, "judge": judge, **categories[name], "category": name}
    return entry | ({"categories": categories} if len(categories) > 1 else {}), values[name]


def _pool(battles: Battles, baseline: str, version: Version, answers: AnswersByModel) -> dict[str, dict[str, Any]]:
    """Figures of each model of a pool, in percent."""
    if len(battles.outcome) == 0:
        return {}
    rates = win_rates(battles, baseline)
    intervals = win_rate_intervals(battles, baseline, version)
    style = _style(battles, baseline, version, answers)
    questions = Counter(model for model, _ in set(zip(battles.b, battles.question, strict=True)))
    return {
        model: {
            "score": 100 * rate,
            "ci": [100 * rate for rate in intervals[model]],
            "ci_kind": "official",
            "win_rate": 100 * rate,
            "baseline": baseline,
            "n": questions[model],
            "battles": int((battles.b == model).sum()),
            "avg_tokens": _tokens(answers.get(model)),
            **style.get(model, {}),
        }
        for model, rate in rates.items()
    }


def _empty_entry(baseline: str) -> dict[str, Any]:
    reason = "no game has a verdict"
    return {"score": None, "ci": None, "ci_kind": None, "win_rate": None, "baseline": baseline, "n": 0, "battles": 0, "reason": reason}


def _style(battles: Battles, baseline: str, version: Version, answers: AnswersByModel) -> dict[str, dict[str, Any]]:
    if not answers:
        return {}
    refusal = "not every battle is against the baseline" if (battles.a != baseline).any() else None
    if reason := refusal or missing_answer(battles, answers):
        return {model: {"style_controlled": None, "style_reason": reason} for model in set(battles.b)}
    official_fits, converged_fits = style_control(battles, baseline, answers, version)
    figures = {model: {"style_controlled": _percent(fit)} for model, fit in official_fits.items()}
    for model, fit in converged_fits.items():
        figures[model]["style_controlled_converged"] = _percent(fit)
    return figures


def _percent(fit: ControlledRate) -> dict[str, Any]:
    interval = [100 * fit.low, 100 * fit.high]
    return {"score": 100 * fit.score, "ci": interval, "coefficients": list(fit.coefficients)}


def _judging_figures(judgments: Sequence[Judgment]) -> dict[str, Any]:
    """The judge's figures on one model.

    Returns:
        games, and those without a verdict; `first_place`: share of games that the response shown first won, 0.5 without bias;
        `consistent`: share of questions on which the same response won in both orders, or both games are ties. The last two are over
        questions whose games both have a verdict.
    """
    labels = LABELS[judgments[0].version]
    games = [[labels[verdict][0] if verdict in labels else None for verdict in judgment.verdicts] for judgment in judgments]
    games_of_pairs = np.array([pair for pair in games if len(pair) == 2 and None not in pair], dtype=float)
    return {
        "games": sum(map(len, games)),
        "no_verdict": sum(pair.count(None) for pair in games),
        "first_place": float(games_of_pairs.mean()) if len(games_of_pairs) else None,
        "consistent": float(np.mean(games_of_pairs[:, 0] == 1 - games_of_pairs[:, 1])) if len(games_of_pairs) else None,
        "duplicates": len(judgments) - len({judgment.question for judgment in judgments}),
    }


def _values(battles: Battles, model: str, judged_questions: Sequence[str]) -> pa.Table:
    """Win rate of each question in percent, with its battles as weight; null if its games have no verdict."""
    mine = battles.where((battles.b == model) | (battles.a == model))
    model_outcomes = np.where(mine.b == model, mine.outcome, 1 - mine.outcome)
    return mean_values([*((question, None) for question in judged_questions), *zip(mine.question, model_outcomes, strict=True)], 100)


def _tokens(answers: Mapping[str, Answer] | None) -> int | None:
    """Mean tokens of a model's responses, cut to a whole number as in the official tool."""
    return int(sum(map(token_length, answers.values())) / len(answers)) if answers else None
