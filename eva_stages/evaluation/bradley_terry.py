"""Win rates of a pool of models against a baseline, from weighted battles, with the official bootstrap.

If every battle is against the baseline, Bradley-Terry without a penalty is exactly (wins + ties/2) / battles; only a pool with battles
between other models needs the logistic fit. v0.1: percentiles 2.5 and 97.5 of 100 rounds that resample the weighted rows of the whole
pool, numpy seed 42; percentiles are taken of Elo ratings and converted to win rates. v2.0: percentiles 5 and 95 over each model's own
rows. The official tool sets no seed for v2.0 (eva: 42), so its interval is reproduced only as closely as it reproduces itself.
"""

import numpy as np
from scipy.special import expit

from eva_stages.core.verdicts import Version
from eva_stages.evaluation.arena_hard import Battles

ROUNDS = 100
SEED = 42
PERCENTILES: dict[Version, tuple[float, float]] = {"v0.1": (2.5, 97.5), "v2.0": (5.0, 95.0)}
_EDGE = 1e-9
"""Distance to 0 and 1 of the rate of a model that lost or won every battle, whose rating would be infinite."""


def win_rates(battles: Battles, baseline: str) -> dict[str, float]:
    """Each model's probability of beating the baseline."""
    models = _models(battles, baseline)
    weights = np.ones(len(battles.outcome))
    return dict(zip(models, _rates(battles, models, baseline, np.searchsorted(models, battles.b), weights).tolist(), strict=True))


def win_rate_intervals(battles: Battles, baseline: str, version: Version) -> dict[str, tuple[float, float]]:
    """The official interval of each model's win rate, 0 to 1."""
    models = _models(battles, baseline)
    if version == "v0.1":
        low, high = rate_of(np.percentile(rating_of(_pool_rounds(battles, models, baseline)), PERCENTILES[version], axis=0))
    else:
        low, high = np.percentile(_model_rounds(battles, models), PERCENTILES[version], axis=0)
    return {model: (float(low[i]), float(high[i])) for i, model in enumerate(models)}


def rating_of(rate: np.ndarray) -> np.ndarray:
    """Elo difference to the baseline of a win rate against it."""
    inner_rate = np.clip(rate, _EDGE, 1 - _EDGE)
    return 400 * np.log10(inner_rate / (1 - inner_rate))


def rate_of(rating: np.ndarray) -> np.ndarray:
    """Win rate against the baseline of an Elo difference to it."""
    return 1 / (1 + 10 ** (-rating / 400))


def _models(battles: Battles, baseline: str) -> list[str]:
    return sorted({*battles.a, *battles.b} - {baseline})


def _pool_rounds(battles: Battles, models: list[str], baseline: str) -> np.ndarray:
    """Win rates of every round, shape (ROUNDS, models). The draw is that of pandas' `sample(frac=1, replace=True)`."""
    random = np.random.RandomState(SEED)
    n = len(battles.outcome)
    place = np.searchsorted(models, battles.b)
    draws = (random.choice(n, size=n, replace=True) for _ in range(ROUNDS))
    return np.array([_rates(battles, models, baseline, place, np.bincount(draw, minlength=n).astype(float)) for draw in draws])


def _model_rounds(battles: Battles, models: list[str]) -> np.ndarray:
    """Win rates of every round, each model's own rows resampled, shape (ROUNDS, models)."""
    random = np.random.RandomState(SEED)
    rows = [battles.outcome[battles.b == model] for model in models]
    return np.array([[random.choice(outcomes, size=len(outcomes)).mean() for outcomes in rows] for _ in range(ROUNDS)])


def _rates(battles: Battles, models: list[str], baseline: str, place: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Win rates, shape (models,); 0.5 for a model without a battle in this round.

    Args:
        place: of each battle's model b among the models, shape (n,).
        weight: multiplicity of each battle, shape (n,).
    """
    if (battles.a != baseline).any():
        return _fitted_rates(battles, models, baseline, weight)
    won_weight = np.bincount(place, weight * battles.outcome, minlength=len(models))
    total_weight = np.bincount(place, weight, minlength=len(models))
    return np.divide(won_weight, total_weight, out=np.full(len(models), 0.5), where=total_weight > 0)


def _fitted_rates(battles: Battles, models: list[str], baseline: str, weight: np.ndarray) -> np.ndarray:
    """Unpenalised Bradley-Terry maximum likelihood over the whole pool, the baseline fixed at 0."""
    from sklearn.linear_model import LogisticRegression

    design = np.zeros((len(weight), len(models) + 1))
    places = {model: place for place, model in enumerate([*models, baseline])}
    rows = np.arange(len(weight))
    design[rows, [places[name] for name in battles.b]] += 1
    design[rows, [places[name] for name in battles.a]] -= 1
    features = np.vstack([design, design])[:, :-1]
    weights = np.concatenate([weight * battles.outcome, weight * (1 - battles.outcome)])
    labels = np.repeat([1, 0], len(weight))
    fit = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-8, max_iter=1000).fit(features, labels, sample_weight=weights)
    return np.asarray(expit(fit.coef_[0]))
