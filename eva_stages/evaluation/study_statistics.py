"""Is the difference between two arms real? The seed is the unit, and differences are paired by seed.

Randomisation model: if two arms are equally good, the sign of each seed's difference is arbitrary. With differences d_1 ... d_n and the
sign patterns S (a pattern and its negation give the same |sum|, so half of them suffice; the identity is the 1),

    p = (1 + #{s in S : |sum_i s_i d_i| >= |sum_i d_i|}) / (1 + |S|)                                   (1)

S is all 2^(n-1) - 1 patterns up to `EXACT_SEEDS` seeds, and `RANDOM_PATTERNS` random ones above. No p is below 2 / 2^n, so with few seeds
nothing can be significant. `scipy.stats.permutation_test` computes (1) too, but its tolerance for ties is relative to the observed mean, so
it errs where that is zero but for rounding, and it refuses a single seed.

The interval is the set of effects t for which d - t is not rejected by (1). Pattern s splits the seeds into two groups, and t counts for s
if it lies between the means of the groups, so the ends of the interval are order statistics of these means. If an arm adds the same to
every seed but for noise, this interval has the stated coverage for noise of any shape, and it excludes zero exactly where p <= 1 -
confidence. BCa [Efron 1987] is computed beside it; with 10 seeds it covers 83 to 90 %, not 95 % (`benchmarks.study_statistics`).
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import optimize, stats

LEVEL = 0.05
CONFIDENCE = 1 - LEVEL
POWER = 0.8
EXACT_SEEDS = 12
RANDOM_PATTERNS = 19_999
BCA_RESAMPLES = 9_999
SIMULATIONS = 2_000
_SEED = 0
_CELLS = 4_000_000
"""Numbers held in memory at a time."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class PairedEffect:
    """The mean difference over seeds; None where the seeds do not determine a figure."""

    n: int
    mean: float
    sd: float | None
    interval: Interval | None
    interval_kind: str | None
    """sign-flip, or t where there are too few seeds for it."""
    bca: Interval | None
    p_value: float
    effect_size: float | None
    """Cohen's d_z: mean / sd."""
    detectable_effect: float | None
    """See `detectable_effect`, in the unit of the differences."""


def paired_effect(differences: Sequence[float], contrasts: int) -> PairedEffect:
    """All figures of one of several contrasts.

    Args:
        differences: one per seed, at least one.
        contrasts: their number in the study, for which the detectable effect is corrected.
    """
    d = np.asarray(differences, dtype=float)
    n, mean = len(d), float(d.mean())
    is_constant = n < 2 or bool(np.ptp(d) <= 1e-12 * np.abs(d).max())
    p_value = sign_flip_p(d)
    if is_constant:
        return PairedEffect(n, mean, None if n < 2 else 0.0, None, None, None, p_value, None, None)
    sd = float(d.std(ddof=1))
    interval = sign_flip_interval(d, CONFIDENCE)
    kind = "t" if interval is None else "sign-flip"
    standard_effect = detectable_effect(n, LEVEL / contrasts)
    return PairedEffect(
        n=n,
        mean=mean,
        sd=sd,
        interval=t_interval(d, CONFIDENCE) if interval is None else interval,
        interval_kind=kind,
        bca=bca_interval(d, CONFIDENCE),
        p_value=p_value,
        effect_size=mean / sd,
        detectable_effect=None if standard_effect is None else standard_effect * sd,
    )


def smallest_p(n: int) -> float:
    """The smallest p value that n seeds can give: that of equal differences, whose sum no other pattern of signs reaches."""
    return sign_flip_p(np.ones(n))


def seeds_needed(contrasts: int) -> int:
    """The fewest seeds with which one of several contrasts can be significant: 2 / 2^n <= level / contrasts."""
    return math.ceil(math.log2(2 * contrasts / LEVEL) - 1e-9)


def sign_flip_p(d: np.ndarray) -> float:
    """The two-sided p value (1)."""
    groups, total = _groups(len(d)), abs(d.sum())
    flipped_totals = np.abs(d.sum() - 2 * groups @ d)
    return float((1 + (flipped_totals >= total - 1e-12 * np.abs(d).sum()).sum()) / (1 + len(groups)))


def sign_flip_interval(d: np.ndarray, confidence: float) -> Interval | None:
    """The effects that (1) does not reject at 1 - confidence; None if it can reject none, or none on one side."""
    level = 1 - confidence
    if not _places(len(d), level):
        return None
    low, high = float(_lower_ends(d[None], level)[0]), -float(_lower_ends(-d[None], level)[0])
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


def t_interval(d: np.ndarray, confidence: float) -> Interval:
    """Student's interval for the mean difference."""
    low, high = stats.t.interval(confidence, len(d) - 1, d.mean(), d.std(ddof=1) / math.sqrt(len(d)))
    return float(low), float(high)


def bca_interval(d: np.ndarray, confidence: float) -> Interval | None:
    """The BCa bootstrap interval; None where the resamples do not determine it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        result = stats.bootstrap((d,), np.mean, confidence_level=confidence, method="BCa", n_resamples=BCA_RESAMPLES, rng=_SEED)
    low, high = result.confidence_interval
    return (float(low), float(high)) if math.isfinite(low) and math.isfinite(high) else None


@cache
def detectable_effect(n: int, level: float) -> float | None:
    """The minimum detectable effect in standard deviations of a normal difference; None if no effect is significant at the level.

    At the effect m, (1) gives p <= level with probability `POWER`. With L the lower end of the interval at 1 - level of differences with
    mean 0, that is P(L + m > 0) = `POWER`, so m is this quantile of -L, over `SIMULATIONS` samples. Above `EXACT_SEEDS` seeds it is the
    formula of the paired t test, which for few seeds promises too much: with 6 at .05 the sign-flip test finds its effect with .64.
    """
    if not _places(n, level):
        return None
    if n > EXACT_SEEDS:
        return t_detectable_effect(n, level)
    samples = np.random.default_rng(_SEED).standard_normal((SIMULATIONS, n))
    return float(np.quantile(-_lower_ends(samples, level), POWER))


def t_detectable_effect(n: int, level: float) -> float:
    """The effect m that the paired t test finds with probability `POWER` [Cohen 1988]: P(t' > t_(1 - level/2)) = `POWER`.

    t' has the noncentral t distribution with n - 1 degrees of freedom and noncentrality m sqrt(n). The probability of a significant
    effect in the wrong direction is left out.
    """
    critical_t = stats.t.ppf(1 - level / 2, n - 1)
    noncentrality = optimize.brentq(lambda value: stats.nct.sf(critical_t, n - 1, value) - POWER, 0, critical_t + 10)
    return float(noncentrality / math.sqrt(n))


def _lower_ends(samples: np.ndarray, level: float) -> np.ndarray:
    """The lower end of the interval at 1 - level of each sample, shape (samples, n)."""
    n = samples.shape[1]
    groups, place = _groups(n), _places(n, level)
    sizes = groups.sum(axis=1)
    is_identity = (sizes == 0) | (sizes == n)
    lower_ends = np.empty(len(samples))
    samples_at_once = max(1, _CELLS // len(groups))
    for start in range(0, len(samples), samples_at_once):
        part = samples[start : start + samples_at_once]
        sums = part @ groups.T
        lower_means = np.minimum(sums / np.maximum(sizes, 1), (part.sum(axis=1, keepdims=True) - sums) / np.maximum(n - sizes, 1))
        lower_means[:, is_identity] = -np.inf
        lower_ends[start : start + len(part)] = np.partition(lower_means, place - 1, axis=1)[:, place - 1]
    return lower_ends


def _places(n: int, level: float) -> int:
    """How many patterns count for an effect that is just not rejected; 0 if (1) can reject none."""
    return math.floor(level * (1 + len(_groups(n))) + 1e-9)


@cache
def _groups(n: int) -> np.ndarray:
    """The seeds whose sign each pattern flips, shape (patterns, n), 0 or 1."""
    if n > EXACT_SEEDS:
        return np.random.default_rng(_SEED).integers(0, 2, (RANDOM_PATTERNS, n)).astype(float)
    numbers = np.arange(1, 2 ** (n - 1))
    return ((numbers[:, None] >> np.arange(n)) & 1).astype(float)
