"""Scores with intervals that resample prompts: answers to one prompt are not independent, prompts are.

What every benchmark hands over is its **values**: one row per question (`VALUES`) with `question_id`, `value` in the benchmark's own
unit (an MT-Bench rating, a win rate in percent, a reward) and `weight`, so that the score is sum(weight * value) / sum(weight).
A question that was not judged has value null and weight 0: it is no loss and no tie. With it any two models or iterations that
were judged on the same questions can be compared, whatever the benchmark. Intervals here are eva's own; the official ones are with
their benchmarks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

ROUNDS = 2000
COMPARING_ROUNDS = 10_000
"""Rounds behind a p value, which cannot be smaller than 2 in as many."""

VALUES = pa.schema([("question_id", pa.string()), ("value", pa.float64()), ("weight", pa.float64())])

_DRAWS = 2_000_000
"""Draws held in memory at a time."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its percentile bootstrap interval and the number of prompts behind it."""

    value: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float | int]:
        return asdict(self)


@dataclass(frozen=True)
class Difference:
    """How much better b is than a on the questions that both were judged on, and their scores on these.

    `improvement` is the share of resampled question sets on which b is better (ties half), `p_value` the two-sided bootstrap
    p value of no difference.
    """

    score_a: float
    score_b: float
    value: float
    low: float
    high: float
    improvement: float
    p_value: float
    n: int

    def as_dict(self) -> dict[str, float | int]:
        return asdict(self)


def clustered_bootstrap(per_prompt: np.ndarray, confidence: float, seed: int) -> Estimate:
    """Mean over prompts and its interval.

    Args:
        per_prompt: one value per prompt, shape (n,); NaN = not known, left out.
        confidence: as 0.95.

    Raises:
        ValueError: if no value is known.
    """
    known = per_prompt[np.isfinite(per_prompt)]
    if len(known) == 0:
        raise ValueError("no prompt has a value")
    rng = np.random.default_rng(seed)
    means = np.array([known[rng.integers(len(known), size=len(known))].mean() for _ in range(ROUNDS)])
    low, high = _interval(means, confidence)
    return Estimate(float(known.mean()), low, high, len(known))


def question_values(values: Mapping[str, float | None], weights: Mapping[str, float] | None = None) -> pa.Table:
    """The values of a benchmark as a `VALUES` table, ordered by question.

    Args:
        values: per question; None = not judged.
        weights: per question; 1 each if not given.
    """
    ids = sorted(values)
    judged = [values[name] is not None for name in ids]
    weight = [(weights[name] if weights else 1.0) if known else 0.0 for name, known in zip(ids, judged, strict=True)]
    return pa.table([ids, [values[name] for name in ids], weight], schema=VALUES)


def estimate_values(table: pa.Table, confidence: float, seed: int) -> Estimate | None:
    """The score of a `VALUES` table with its question-clustered interval; None if no question was judged."""
    value, weight = _arrays(table)
    if not weight.any():
        return None
    judged = weight > 0
    (means,) = _resampled(len(value[judged]), [(value[judged], weight[judged])], ROUNDS, seed)
    low, high = _interval(means, confidence)
    return Estimate(_mean(value, weight), low, high, int(judged.sum()))


def paired_bootstrap(a: pa.Table, b: pa.Table, confidence: float, seed: int) -> Difference:
    """How much better b is than a: the same resampled questions score both, so what is hard for both cancels out.

    Args:
        a, b: `VALUES` tables; questions that either was not judged on are left out.

    Raises:
        ValueError: if no question was judged for both.
    """
    places = pc.index_in(a["question_id"], b["question_id"].combine_chunks())
    shared = pc.is_valid(places)
    (value_a, weight_a), (value_b, weight_b) = _arrays(a.filter(shared)), _arrays(b.take(places.filter(shared)))
    both = (weight_a > 0) & (weight_b > 0)
    if not both.any():
        raise ValueError("no question was judged for both")
    sides = [(value_a[both], weight_a[both]), (value_b[both], weight_b[both])]
    means_a, means_b = _resampled(int(both.sum()), sides, COMPARING_ROUNDS, seed)
    differences = means_b - means_a
    below, above = int((differences <= 0).sum()), int((differences >= 0).sum())
    low, high = _interval(differences, confidence)
    score_a, score_b = (_mean(*side) for side in sides)
    return Difference(
        score_a=score_a,
        score_b=score_b,
        value=score_b - score_a,
        low=low,
        high=high,
        improvement=float((differences > 0).mean() + (differences == 0).mean() / 2),
        p_value=min(1.0, 2 * (1 + min(below, above)) / (COMPARING_ROUNDS + 1)),
        n=int(both.sum()),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979): p values that may each be held against one level for the whole family."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]


def _arrays(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Values, shape (n,), 0 where not judged, and weights, shape (n,)."""
    return pc.fill_null(table["value"], 0.0).to_numpy(), table["weight"].to_numpy()


def _mean(value: np.ndarray, weight: np.ndarray) -> float:
    return float((value * weight).sum() / weight.sum())


def _interval(means: np.ndarray, confidence: float) -> tuple[float, float]:
    tail = 50 * (1 - confidence)
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


def _resampled(n: int, sides: list[tuple[np.ndarray, np.ndarray]], rounds: int, seed: int) -> list[np.ndarray]:
    """Weighted means of each side, shape (rounds,), over the same resampled questions."""
    rng = np.random.default_rng(seed)
    totals = [(value * weight, weight) for value, weight in sides]
    means = [np.empty(rounds) for _ in sides]
    at_once = max(1, _DRAWS // n)
    for start in range(0, rounds, at_once):
        drawn = rng.integers(n, size=(min(at_once, rounds - start), n))
        for mean, (total, weight) in zip(means, totals, strict=True):
            mean[start : start + len(drawn)] = total[drawn].sum(axis=1) / weight[drawn].sum(axis=1)
    return means
