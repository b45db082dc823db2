"""Statistics of an audit: is informativeness measured reliably, and is it heritable?

Every figure is a function of sums over independent **units** (prompts, or families of prompts with one parent), so one matrix product gives
its value and all its resamples: row 0 of the multiplicities is the sample itself, the others are resamples of units. The interval is the
95 % percentile interval of the bootstrap, or that of the jackknife for a figure with a `Scale`: with 12 to 32 families the bootstrap puts
the upper end of an intraclass correlation below its true value in 10 to 13 % of the cases, the jackknife in 3 to 5 %. Where a figure is not
defined (no spread, too few units) it is None.
"""

from collections.abc import Callable
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata
from scipy.stats import t as student_t

from eva_stages.evaluation.statistics import Estimate

ROUNDS = 1000
MOST_GROUPS = 200
"""Groups of units that the jackknife leaves out, one at a time."""
MOST_SPLITS = 50
ALL_SPLITS_UP_TO = 8
"""Responses per prompt up to which every split into halves is used."""
LEAST_RESPONSES = 4
"""Responses per prompt that are split into halves."""
LEAST_UNITS = 10
"""With fewer units no figure is given: the bootstrap's interval would be too narrow."""
LEAST_RELIABILITY = 0.05
"""A correlation is not corrected for a reliability below this: the quotient would be noise."""
LEAST_DEFINED_SHARE = 0.9
"""Share of the resamples in which a figure must be defined."""
_CELLS = 2_000_000
"""Multiplicities held in memory at a time."""

Metric = Callable[[np.ndarray], np.ndarray]
Statistic = Callable[[np.ndarray], np.ndarray]
"""From multiplicities of units, shape (rounds, units), to a figure per round, NaN where it is not defined."""


class Scale(NamedTuple):
    """An increasing function of a figure, on which its error hardly depends on its value, and the inverse."""

    forward: Callable[[np.ndarray], np.ndarray]
    inverse: Callable[[np.ndarray], np.ndarray]


def estimate(statistic: Statistic, units: int, n: int, scale: Scale | None = None) -> Estimate | None:
    """A figure with its interval; `n` is what it is reported to be based on."""
    if units < LEAST_UNITS:
        return None
    value = point_value(statistic, units)
    interval = None if scale is None else _jackknife_interval(statistic, units, value, scale)
    if interval is None:  # no scale, or a figure at the end of its scale
        interval = _bootstrap_interval(statistic, units)
    return None if interval is None or not np.isfinite(value) else Estimate(value, *interval, n)


def _bootstrap_interval(statistic: Statistic, units: int) -> tuple[float, float] | None:
    rounds_at_once = max(1, _CELLS // units)
    starts = range(0, ROUNDS, rounds_at_once)
    with np.errstate(all="ignore"):
        resampled_values = np.concatenate([statistic(_resamples(units, min(rounds_at_once, ROUNDS - start), start)) for start in starts])
    known_values = resampled_values[np.isfinite(resampled_values)]
    if len(known_values) < LEAST_DEFINED_SHARE * ROUNDS:
        return None
    low, high = np.percentile(known_values, [2.5, 97.5])
    return float(low), float(high)


def _jackknife_interval(statistic: Statistic, units: int, value: float, scale: Scale) -> tuple[float, float] | None:
    """Student's interval of the pseudo-values on the scale [Tukey 1958; Miller 1974]; None where one of them is not defined."""
    groups = min(units, MOST_GROUPS)
    is_left_out = np.arange(units) % groups == np.arange(groups)[:, None]
    with np.errstate(all="ignore"):
        center = scale.forward(np.array(value))
        pseudo_values = groups * center - (groups - 1) * scale.forward(statistic(1.0 - is_left_out))
        margin = student_t.ppf(0.975, groups - 1) * pseudo_values.std(ddof=1) / groups**0.5
        low, high = float(scale.inverse(center - margin)), float(scale.inverse(center + margin))
    return (low, high) if np.isfinite([low, high]).all() else None


def point_value(statistic: Statistic, units: int) -> float:
    """A figure without its interval; NaN if it is not defined."""
    with np.errstate(all="ignore"):
        return float(statistic(np.ones((1, units)))[0])


@lru_cache(maxsize=4)
def _resamples(units: int, rounds: int, seed: int) -> np.ndarray:
    """How often each unit is in each resample, shape (rounds, units); cached, because an audit has many figures of the same units."""
    return np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), size=rounds).astype(float)


def unit_sums(values: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Sums of the rows of each unit; `units` numbers the rows' units from 0, values have shape (rows, ...)."""
    sums = np.zeros((int(units.max(initial=-1)) + 1, *values.shape[1:]))
    np.add.at(sums, units, values)
    return sums


def correlation(x: np.ndarray, y: np.ndarray, units: np.ndarray) -> Statistic:
    """Pearson's correlation of each column of x and y, shape (rows, columns), averaged over the columns; rows of a unit stay together."""
    x, y = _standard(x), _standard(y)
    moments = unit_sums(np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1), units)

    def statistic(multiplicities: np.ndarray) -> np.ndarray:
        n, sx, sy, sxx, syy, sxy = np.moveaxis(np.tensordot(multiplicities, moments, axes=1), 1, 0)
        covariance = sxy - sx * sy / n
        product = (sxx - sx * sx / n) * (syy - sy * sy / n)
        return np.asarray(np.where(product > 1e-9 * n * n, covariance / np.sqrt(product), np.nan).mean(axis=1))

    return statistic


def rank_correlation(x: np.ndarray, y: np.ndarray, units: np.ndarray) -> Statistic:
    """Spearman's correlation of each column, averaged over the columns. The ranks are those of the sample in every resample."""
    return correlation(rankdata(x, axis=0), rankdata(y, axis=0), units)


def halves(n: int, seed: int = 0) -> list[tuple[list[int], list[int]]]:
    """Splits of n responses into two halves of n // 2: all of them for few responses, else `MOST_SPLITS` at random.

    Empty below `LEAST_RESPONSES`, because a single response has no spread.
    """
    size = n // 2
    if n < LEAST_RESPONSES:
        return []
    if n > ALL_SPLITS_UP_TO:
        orders = [np.random.default_rng([seed, split]).permutation(n).tolist() for split in range(MOST_SPLITS)]
        return [(order[:size], order[size : 2 * size]) for order in orders]
    firsts = [first for first in combinations(range(n), size) if n % 2 or first[0] == 0]
    return [(list(first), [index for index in range(n) if index not in first][:size]) for first in firsts]


def reliability(rewards: np.ndarray, metric: Metric, units: np.ndarray) -> Statistic:
    """The reliability of a metric over n responses, from its halves [Spearman 1910, Brown 1910].

    With r the correlation, over prompts, of the metric of one half of the responses and of the other, averaged over the splits, and
    f = n / (n // 2) the factor by which all responses are more than a half of them:

        reliability = f r / (1 + (f - 1) r)

    Args:
        rewards: shape (prompts, n), without NaN.
    """
    n = rewards.shape[1]
    splits = halves(n)
    if not splits:
        return lambda multiplicities: np.full(len(multiplicities), np.nan)
    first, second = (np.stack([metric(rewards[:, split[half]]) for split in splits], axis=1) for half in (0, 1))
    of_halves, factor = correlation(first, second, units), n / (n // 2)

    def statistic(multiplicities: np.ndarray) -> np.ndarray:
        r = of_halves(multiplicities)
        return factor * r / (1 + (factor - 1) * r)

    return statistic


def intraclass_correlation(values: np.ndarray, families: np.ndarray) -> Statistic:
    """ICC(1) of one-way random effects with families of unequal size [Shrout and Fleiss 1979; Donner 1986].

        ICC = (MSB - MSW) / (MSB + (k0 - 1) MSW),    k0 = (N - sum_j k_j^2 / N) / (a - 1)

    for a families of k_j members, N members in total, and the mean squares between and within families.

    Args:
        values, families: shape (members,); families are numbered from 0.
    """
    values = _standard(values)
    sizes, sums = unit_sums(np.ones(len(values)), families), unit_sums(values, families)
    squares = unit_sums(values * values, families)
    moments = np.stack([np.ones_like(sizes), sizes, sizes**2, sums, sums**2 / sizes, squares], axis=1)

    def statistic(multiplicities: np.ndarray) -> np.ndarray:
        count, members, sizes_squared, total, between_squares, total_squares = (multiplicities @ moments).T
        within_mean_square = (total_squares - between_squares) / (members - count)
        between_mean_square = (between_squares - total**2 / members) / (count - 1)
        size = (members - sizes_squared / members) / (count - 1)
        spread = between_mean_square + (size - 1) * within_mean_square
        is_defined = (members > count) & (count > 1) & (spread > 1e-9)
        return np.asarray(np.where(is_defined, (between_mean_square - within_mean_square) / spread, np.nan))

    return statistic


def f_ratio_scale(families: np.ndarray) -> Scale:
    """ln F of the families' analysis of variance, F = (1 + (k0 - 1) ICC) / (1 - ICC), the scale of an intraclass correlation."""
    sizes = np.bincount(families)
    size = (sizes.sum() - (sizes**2).sum() / sizes.sum()) / max(1, len(sizes) - 1)

    def inverse(values: np.ndarray) -> np.ndarray:
        return np.asarray(np.expm1(values) / (np.expm1(values) + size))

    return Scale(lambda correlations: np.log((1 + (size - 1) * correlations) / (1 - correlations)), inverse)


def corrected_intraclass_correlation(rewards: np.ndarray, metric: Metric, families: np.ndarray) -> Statistic:
    """ICC(1) of what the metric measures: the raw one divided by the reliability of the same prompts [Spearman 1904].

    Noise of the n responses is independent between siblings, so it adds to the variance within families only.
    """
    raw, of_metric = intraclass_correlation(metric(rewards), families), reliability(rewards, metric, families)

    def statistic(multiplicities: np.ndarray) -> np.ndarray:
        divisor = of_metric(multiplicities)
        return np.where(divisor >= LEAST_RELIABILITY, raw(multiplicities) / divisor, np.nan)

    return statistic


def lift(child_means: np.ndarray, weights: np.ndarray, inclusion: np.ndarray) -> Statistic:
    """How much higher the mean of the children is if parents are drawn by `weights` rather than uniformly, as a share of the latter.

    The parents that have children are a sample drawn with known probabilities, so both means weigh a parent by the inverse of its
    probability of being selected [Hajek 1971].

    Args:
        child_means: mean informativeness of each parent's children, shape (parents,), not negative.
        weights: by which parents would be drawn, shape (parents,).
        inclusion: probability that the selection had the parent, shape (parents,).
    """
    share = 1 / inclusion
    moments = np.stack([share, share * child_means, share * weights, share * weights * child_means], axis=1)

    def statistic(multiplicities: np.ndarray) -> np.ndarray:
        total, sums, weight, weighted_sums = (multiplicities @ moments).T
        return np.asarray((weighted_sums / weight) / (sums / total) - 1)

    return statistic


def share(flags: np.ndarray) -> Statistic:
    """The share of prompts with a property; flags of shape (prompts,)."""
    values = flags.astype(float)
    return lambda multiplicities: multiplicities @ values / multiplicities.sum(axis=1)


def learnable(rewards: np.ndarray) -> tuple[np.ndarray, str]:
    """Which prompts can teach the policy something, shape (prompts,), and the rule in words.

    Rewards of 0 and 1: the policy succeeds sometimes, in 20 to 80 % of its responses. Other rewards: the spread of a prompt's responses
    (standard deviation) is above noise, which is the standard error of a mean of n responses, s / sqrt(n), with s^2 the mean variance
    within prompts; a prompt whose responses are all equal is not learnable.
    """
    if np.isin(rewards, (0.0, 1.0)).all():
        success = rewards.mean(axis=1)
        return (success >= 0.2 - 1e-9) & (success <= 0.8 + 1e-9), "success share from .2 to .8"
    variances = rewards.var(axis=1, ddof=1)
    return variances > variances.mean() / rewards.shape[1], "spread of responses above the standard error of their mean"


def _standard(values: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and standard deviation 1, so that sums of squares lose no digits; constant columns become 0."""
    spread = values.std(axis=0)
    return np.asarray((values - values.mean(axis=0)) / np.where(spread > 1e-12 * (1 + np.abs(values).max(initial=0)), spread, np.inf))
