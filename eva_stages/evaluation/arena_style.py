"""Style control of Arena-Hard: the win rate a model would have if it wrote as long and as formatted as the baseline.

Four differences between the two answers of a battle (tokens, headers, list items, bold spans), z-scored over all battles, join the
models in one logistic regression; the model's part of it is the controlled win rate. It therefore depends on the pool of models scored
together.

    v0.1: (a - b) / (a + b + 1) per count; L2 penalty with C = 1; score = the fit; interval = 2.5 and 97.5 % of 100 rounds, seed 42.
    v2.0: tokens (a - b) / (a + b), markdown per token as (a - b) / (a + b + 1); no penalty; score = median of 100 rounds, which the
          official tool does not seed, interval = 5 and 95 %.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit

from eva_stages.evaluation.answers import Answer, style_counts
from eva_stages.evaluation.arena_hard import Battles, Version
from eva_stages.evaluation.bradley_terry import PERCENTILES, ROUNDS, SEED

FEATURES = ("tokens", "headers", "lists", "bold")


class Controlled(NamedTuple):
    """Style-controlled win rate, 0 to 1, with its interval, and the weight of each of `FEATURES` in the fit."""

    score: float
    low: float
    high: float
    coefficients: tuple[float, ...]


def unanswered(battles: Battles, answers: Mapping[str, Mapping[str, Answer]]) -> str | None:
    """Which answers style control lacks; None if it has all."""
    for side in (battles.a, battles.b):
        for model, question in zip(side, battles.question, strict=True):
            if question not in answers.get(model, {}):
                return f"no answer of {model} to question {question}"
    return None


def style_control(battles: Battles, baseline: str, answers: Mapping[str, Mapping[str, Answer]], version: Version) -> dict[str, Controlled]:
    """The style-controlled win rate of each model against the baseline.

    Args:
        battles: each between the baseline (a) and a model (b).
        answers: by model, then by question; of every battle.
    """
    models = sorted(set(battles.b))
    features = standardised(_counts(battles.a, battles, answers), _counts(battles.b, battles, answers), version)
    place = np.searchsorted(models, battles.b)
    random = np.random.RandomState(SEED)
    n = len(place)
    draws = [np.bincount(random.choice(n, size=n, replace=True), minlength=n).astype(float) for _ in range(ROUNDS)]
    point = _fit(place, len(models), features, battles.outcome, np.ones(n), version)
    rounds = np.array([_fit(place, len(models), features, battles.outcome, draw, version) for draw in draws])
    rates = expit(rounds[:, : len(models)])
    low, high = np.percentile(rates, PERCENTILES[version], axis=0)
    score = expit(point[: len(models)]) if version == "v0.1" else np.median(rates, axis=0)
    weights = tuple(float(weight) for weight in point[len(models) :])
    return {model: Controlled(float(score[i]), float(low[i]), float(high[i]), weights) for i, model in enumerate(models)}


def standardised(a: np.ndarray, b: np.ndarray, version: Version) -> np.ndarray:
    """Style features of battles, shape (n, 4), of counts of shape (n, 4): b against a, mean 0 and deviation 1 over the battles."""
    if version == "v0.1":
        ratio = (b - a) / (b + a + 1)
        deviation = ratio.std(axis=0)
    else:
        ratio = np.empty_like(a)
        ratio[:, 0] = (b[:, 0] - a[:, 0]) / np.maximum(b[:, 0] + a[:, 0], 1)
        density_a, density_b = (side[:, 1:] / np.maximum(side[:, :1], 1) for side in (a, b))
        ratio[:, 1:] = (density_b - density_a) / (density_b + density_a + 1)
        deviation = ratio.std(axis=0, ddof=1)
    centred = ratio - ratio.mean(axis=0)
    return np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 0)


def _counts(side: np.ndarray, battles: Battles, answers: Mapping[str, Mapping[str, Answer]]) -> np.ndarray:
    """Style counts of one side's answers, shape (n, 4)."""
    found: dict[tuple[str, str], tuple[int, ...]] = {}
    for key in dict.fromkeys(zip(side, battles.question, strict=True)):
        found[key] = style_counts(answers[key[0]][key[1]])
    return np.array([found[key] for key in zip(side, battles.question, strict=True)], dtype=float)


def _fit(place: np.ndarray, models: int, features: np.ndarray, outcome: np.ndarray, weight: np.ndarray, version: Version) -> np.ndarray:
    """Log odds of each model against the baseline, then the features' coefficients, shape (models + 4,).

    The official v0.1 design holds every battle twice (a tie once each way), scales the models' columns by log 10, and penalises
    the baseline's column as well; the baseline is therefore a column here too.
    """
    from sklearn.linear_model import LogisticRegression

    scale = np.log(10) if version == "v0.1" else 1.0
    design: Any = np.zeros((len(place), models + 1 + features.shape[1]))
    design[np.arange(len(place)), place] = scale
    design[:, models] = -scale
    design[:, models + 1 :] = features
    copies = 2 if version == "v0.1" else 1
    weights = copies * np.concatenate([weight * outcome, weight * (1 - outcome)])
    labels = np.repeat([1, 0], len(place))
    penalty = 1.0 if version == "v0.1" else np.inf
    fit = LogisticRegression(C=penalty, fit_intercept=False, max_iter=1000)
    coefficients = fit.fit(np.vstack([design, design]), labels, sample_weight=weights).coef_[0]
    return np.concatenate([scale * (coefficients[:models] - coefficients[models]), coefficients[models + 1 :]])
