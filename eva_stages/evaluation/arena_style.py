"""Style control of Arena-Hard: a model's win rate at equal length and formatting.

A logistic regression of the outcome on the models and on four style differences between the two responses of a battle (tokens, headers,
list items, bold spans; z-scored over all battles). The model's coefficient gives the controlled win rate, which therefore depends on
the pool of models scored together.

    v0.1: (a - b) / (a + b + 1) per count; L2 penalty with C = 1; score = the fit; interval = 2.5 and 97.5 % of 100 rounds, seed 42.
    v2.0: tokens (a - b) / (a + b), markdown per (tokens + 1) as (a - b) / (a + b + 1); no penalty; score = median of 100 rounds, which
          the official tool does not seed, interval = 5 and 95 %.

The official tool of v2.0 stops before convergence, after 50 steps of LBFGS with learning rate 0.1 from 0.5. The official figure is the
result of these steps, so eva takes the same steps; the converged fit is reported beside it as eva's own (docs/differences.md).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit

from eva_stages.core.verdicts import Version
from eva_stages.evaluation.answers import Answer, style_counts
from eva_stages.evaluation.arena_hard import Battles
from eva_stages.evaluation.bradley_terry import PERCENTILES, ROUNDS, SEED

FEATURES = ("tokens", "headers", "lists", "bold")


START, LEARNING_RATE, STEPS, TOLERANCE = 0.5, 0.1, 50, 1e-9
"""Of the official optimiser of v2.0."""


class ControlledRate(NamedTuple):
    """Style-controlled win rate, 0 to 1, with its interval, and the coefficient of each of `FEATURES`."""

    score: float
    low: float
    high: float
    coefficients: tuple[float, ...]


def missing_answer(battles: Battles, answers: Mapping[str, Mapping[str, Answer]]) -> str | None:
    """The first response that style control needs and does not have; None if it has all."""
    for side in (battles.a, battles.b):
        for model, question in zip(side, battles.question, strict=True):
            if question not in answers.get(model, {}):
                return f"there is no response of {model} to question {question}"
    return None


def style_control(
    battles: Battles, baseline: str, answers: Mapping[str, Mapping[str, Answer]], version: Version
) -> tuple[dict[str, ControlledRate], dict[str, ControlledRate]]:
    """The style-controlled win rate of each model against the baseline, by the official procedure and by a converged fit.

    Args:
        battles: each between the baseline (a) and a model (b).
        answers: by model, then by question; of every battle.

    Returns:
        both by model; the second is empty for v0.1, whose official fit converges.
    """
    models = sorted(set(battles.b))
    features = standardised_features(_counts(battles.a, battles, answers), _counts(battles.b, battles, answers), version)
    place = np.searchsorted(models, battles.b)
    random = np.random.RandomState(SEED)
    n = len(place)
    draws = [random.choice(n, size=n, replace=True) for _ in range(ROUNDS)]

    def converged_fit(rows: np.ndarray) -> np.ndarray:
        return _fit(place, len(models), features, battles.outcome, np.bincount(rows, minlength=n).astype(float), version)

    def official(rows: np.ndarray) -> np.ndarray:
        return _official_steps(place[rows], len(models), features[rows], battles.outcome[rows])

    point = converged_fit(np.arange(n))
    fits = [np.array([fit(rows) for rows in draws]) for fit in (converged_fit, *([official] if version == "v2.0" else []))]
    results = [_controlled_rates(models, rounds, point if version == "v0.1" else np.median(rounds, axis=0), version) for rounds in fits]
    return results[-1], results[0] if version == "v2.0" else {}


def _controlled_rates(models: list[str], rounds: np.ndarray, point: np.ndarray, version: Version) -> dict[str, ControlledRate]:
    """Win rates of the models.

    Args:
        rounds: log odds of the models, then coefficients, shape (ROUNDS, models + 4).
        point: those of the score, shape (models + 4,); win rates are monotonic in log odds, so both have the same median.
    """
    rates = expit(rounds[:, : len(models)])
    low, high = np.percentile(rates, PERCENTILES[version], axis=0)
    score = expit(point[: len(models)])
    weights = tuple(float(weight) for weight in point[len(models) :])
    return {model: ControlledRate(float(score[i]), float(low[i]), float(high[i]), weights) for i, model in enumerate(models)}


def standardised_features(a: np.ndarray, b: np.ndarray, version: Version) -> np.ndarray:
    """Style features of b against a, shape (n, 4), from counts of shape (n, 4), with mean 0 and deviation 1 over the battles."""
    if version == "v0.1":
        ratio = (b - a) / (b + a + 1)
        deviation = ratio.std(axis=0)
    else:
        ratio = np.empty_like(a)
        ratio[:, 0] = (b[:, 0] - a[:, 0]) / np.maximum(b[:, 0] + a[:, 0], 1)
        density_a, density_b = (side[:, 1:] / (side[:, :1] + 1) for side in (a, b))
        ratio[:, 1:] = (density_b - density_a) / (density_b + density_a + 1)
        deviation = ratio.std(axis=0, ddof=1)
    centred_ratio = ratio - ratio.mean(axis=0)
    return np.divide(centred_ratio, deviation, out=np.zeros_like(centred_ratio), where=deviation > 0)


def _counts(side: np.ndarray, battles: Battles, answers: Mapping[str, Mapping[str, Answer]]) -> np.ndarray:
    """Style counts of one side's responses, shape (n, 4)."""
    counts: dict[tuple[str, str], tuple[int, ...]] = {}
    for key in dict.fromkeys(zip(side, battles.question, strict=True)):
        counts[key] = style_counts(answers[key[0]][key[1]])
    return np.array([counts[key] for key in zip(side, battles.question, strict=True)], dtype=float)


def _fit(place: np.ndarray, models: int, features: np.ndarray, outcome: np.ndarray, weight: np.ndarray, version: Version) -> np.ndarray:
    """Log odds of each model against the baseline, then the features' coefficients, shape (models + 4,).

    The official v0.1 design has every battle twice (a tie once each way), scales the models' columns by log 10, and penalises the
    baseline's column too, so the baseline has a column here.
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


def _official_steps(place: np.ndarray, models: int, features: np.ndarray, outcome: np.ndarray) -> np.ndarray:
    """The result of v2.0's official optimiser: `STEPS` steps of LBFGS in float32 from `START`; shape (models + 4,)."""
    import torch

    count = len(place)
    design = torch.zeros(count, models + 1 + features.shape[1])
    design[torch.arange(count), torch.from_numpy(place)] = 1.0
    design[:, models] = -1.0  # the baseline
    design[:, models + 1 :] = torch.from_numpy(features)
    outcomes = torch.from_numpy(outcome).float()
    coefficients = torch.full((design.shape[1],), START, requires_grad=True)
    optimizer = torch.optim.LBFGS([coefficients], lr=LEARNING_RATE, max_iter=STEPS, tolerance_grad=TOLERANCE, tolerance_change=TOLERANCE)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        total = torch.nn.functional.binary_cross_entropy_with_logits(design @ coefficients, outcomes, reduction="sum")
        total.backward()
        return total

    optimizer.step(loss)
    values = coefficients.detach().double().numpy()
    return np.concatenate([values[:models] - values[models], values[models + 1 :]])
