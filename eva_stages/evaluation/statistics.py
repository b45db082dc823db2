"""Scores with intervals that resample questions: responses to one question are not independent, questions are.

Every benchmark provides its **values**: one row per question (`VALUES`) with `question_id`, `value` in the benchmark's own unit (an
MT-Bench rating, a win rate in percent, a reward) and `weight`. The score is

    s = sum_q w_q v_q / sum_q w_q                                                                      (1)

A question without a judgment has value null and weight 0; it is neither a loss nor a tie. Values of the same questions can be compared
between any two models or iterations, whatever the benchmark. The intervals here are eva's own; the official ones are with their benchmarks.

`scipy.stats.bootstrap` draws the same resamples, but its vectorised means and percentiles differ from these in the last digit, and it
refuses a single question; published figures of eva must not change, so the resampling is written out here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

ROUNDS = 2000
COMPARING_ROUNDS = 10_000
"""Rounds for a p value, whose smallest value is 2 / (rounds + 1)."""

VALUES = pa.schema([("question_id", pa.string()), ("value", pa.float64()), ("weight", pa.float64())])

_DRAWS = 2_000_000
"""Draws held in memory at a time."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its percentile bootstrap interval, over `n` questions."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Difference:
    """Score b minus score a on the questions that have a value on both sides; see `paired_bootstrap`."""

    score_a: float
    score_b: float
    value: float
    low: float
    high: float
    improvement: float
    p_value: float
    n: int


def clustered_bootstrap(per_prompt: np.ndarray, confidence: float, seed: int) -> Estimate:
    """Mean over prompts with its percentile interval [Efron 1979]: quantiles of the means of resampled prompts.

    Args:
        per_prompt: one value per prompt, shape (n,); NaN = unknown, left out.
        confidence: such as 0.95.

    Raises:
        ValueError: if every value is NaN.
    """
    known_values = per_prompt[np.isfinite(per_prompt)]
    if len(known_values) == 0:
        raise ValueError("no prompt has a value")
    return _estimate(known_values, np.ones(len(known_values)), confidence, seed)


def question_values(values: Mapping[str, float | None], weights: Mapping[str, float] | None = None) -> pa.Table:
    """The values of a benchmark as a `VALUES` table, ordered by question.

    Args:
        values: per question; None = no judgment.
        weights: per question; None: 1 each.
    """
    ids = sorted(values)
    weight = [0.0 if values[name] is None else weights[name] if weights else 1.0 for name in ids]
    return pa.table([ids, [values[name] for name in ids], weight], schema=VALUES)


def mean_values(results: Iterable[tuple[str, float | None]], unit: float = 1.0) -> pa.Table:
    """The mean result of each question, times `unit`, as a `VALUES` table, with the number of its results that are not None as weight."""
    by_question: dict[str, list[float]] = {}
    for question, result in results:
        by_question.setdefault(question, []).extend([] if result is None else [result])
    means = {question: unit * float(np.mean(numbers)) if numbers else None for question, numbers in by_question.items()}
    return question_values(means, {question: len(numbers) for question, numbers in by_question.items()})


def estimate_values(table: pa.Table, confidence: float, seed: int) -> Estimate | None:
    """The score (1) of a `VALUES` table with its question-clustered interval; None if no question has a value."""
    value, weight = _arrays(table)
    return _estimate(value, weight, confidence, seed) if weight.any() else None


def paired_bootstrap(a: pa.Table, b: pa.Table, confidence: float, seed: int) -> Difference:
    """The difference d = s_b - s_a with its interval and p value; every resample of questions scores both sides [Koehn 2004].

    With d_r the difference in round r of R = `COMPARING_ROUNDS`:

        improvement = (#{d_r > 0} + #{d_r = 0} / 2) / R
        p_value = min(1, 2 (1 + min(#{d_r <= 0}, #{d_r >= 0})) / (R + 1))        two-sided [Davison and Hinkley 1997, 4.11]

    Args:
        a, b: `VALUES` tables; questions without a value on either side are left out.

    Raises:
        ValueError: if no question has a value on both sides.
    """
    places = pc.index_in(a["question_id"], b["question_id"].combine_chunks())
    is_shared = pc.is_valid(places)
    (value_a, weight_a), (value_b, weight_b) = _arrays(a.filter(is_shared)), _arrays(b.take(places.filter(is_shared)))
    is_judged = (weight_a > 0) & (weight_b > 0)
    if not is_judged.any():
        raise ValueError("no question has a value on both sides")
    sides = [(value_a[is_judged], weight_a[is_judged]), (value_b[is_judged], weight_b[is_judged])]
    means_a, means_b = _resampled_means(int(is_judged.sum()), sides, COMPARING_ROUNDS, seed)
    differences = means_b - means_a
    count_below, count_above = int((differences <= 0).sum()), int((differences >= 0).sum())
    low, high = _interval(differences, confidence)
    score_a, score_b = (_mean(*side) for side in sides)
    return Difference(
        score_a=score_a,
        score_b=score_b,
        value=score_b - score_a,
        low=low,
        high=high,
        improvement=float((differences > 0).mean() + (differences == 0).mean() / 2),
        p_value=min(1.0, 2 * (1 + min(count_below, count_above)) / (COMPARING_ROUNDS + 1)),
        n=int(is_judged.sum()),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values of a family of tests [Holm 1979]; comparing each with alpha keeps the family-wise error rate at most alpha.

    With p_(1) <= ... <= p_(m): adjusted p_(i) = max_{j <= i} min(1, (m - j + 1) p_(j)).
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    stepped_p = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted_p = np.empty(len(p))
    adjusted_p[order] = np.minimum(stepped_p, 1.0)
    return [float(value) for value in adjusted_p]


def _arrays(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Values, shape (n,), 0 for null, and weights, shape (n,)."""
    return pc.fill_null(table["value"], 0.0).to_numpy(), table["weight"].to_numpy()


def _mean(value: np.ndarray, weight: np.ndarray) -> float:
    return float((value * weight).sum() / weight.sum())


def _estimate(value: np.ndarray, weight: np.ndarray, confidence: float, seed: int) -> Estimate:
    is_judged = weight > 0
    n = int(is_judged.sum())
    (means,) = _resampled_means(n, [(value[is_judged], weight[is_judged])], ROUNDS, seed)
    return Estimate(_mean(value, weight), *_interval(means, confidence), n)


def _interval(means: np.ndarray, confidence: float) -> tuple[float, float]:
    tail = 50 * (1 - confidence)
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


def _resampled_means(n: int, sides: list[tuple[np.ndarray, np.ndarray]], rounds: int, seed: int) -> list[np.ndarray]:
    """The score (1) of each side, shape (rounds,), on the same resampled questions."""
    rng = np.random.default_rng(seed)
    totals = [(value * weight, weight) for value, weight in sides]
    means = [np.empty(rounds) for _ in sides]
    rounds_at_once = max(1, _DRAWS // n)
    for start in range(0, rounds, rounds_at_once):
        places = rng.integers(n, size=(min(rounds_at_once, rounds - start), n))
        for mean, (total, weight) in zip(means, totals, strict=True):
            mean[start : start + len(places)] = total[places].sum(axis=1) / weight[places].sum(axis=1)
    return means
