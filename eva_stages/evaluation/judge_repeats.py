"""Does a judge agree with itself? A sample of its judgments beside those of a second call about the same texts in the same order.

x and y are the first and the second verdict on a judgment: -1 lost, 0 tie, 1 won, or the outcome of a rating. Then

    agreement   share of the judgments with x = y
    kappa       1 - sum_i (x_i - y_i)^2 / n / (sum_i sum_j (x_i - y_j)^2 / n^2)      [Cohen 1968, quadratic weights]

The intervals are percentile bootstrap intervals over questions: the two games or turns of a question are not independent.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from eva_stages.evaluation.statistics import ROUNDS

TAILS = (2.5, 97.5)


def repeat_figures(first: pa.Table, second: pa.Table) -> dict[str, float | None]:
    """Agreement and kappa with their 95 % intervals, and the number of judgments with two verdicts.

    Args:
        first, second: judgments, `second` of a sample; both with prompt_id, game, outcome, rating.
    """
    questions, pairs = _verdict_pairs(first, second)
    figures: dict[str, float | None] = {"judgments_repeated": float(len(pairs))}
    for name in ("judge_agreement", "judge_kappa"):
        figures |= dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    if not len(pairs):
        return figures
    _, places = np.unique(questions, return_inverse=True)
    sums = np.zeros((places.max() + 1, 6))
    np.add.at(sums, places, _moments(pairs))
    draws = np.random.default_rng(0).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=ROUNDS)
    for name, values in _figures(np.vstack([sums.sum(axis=0), draws @ sums])).items():
        if np.isfinite(values[0]):
            low, high = np.nanpercentile(values[1:], TAILS)
            figures |= {name: float(values[0]), f"{name}_low": float(low), f"{name}_high": float(high)}
    return figures


def _verdict_pairs(first: pa.Table, second: pa.Table) -> tuple[list[str], np.ndarray]:
    """The questions and both verdicts, shape (n, 2), of the judgments that have both."""
    keys = ("prompt_id", "game")
    first_rows = {tuple(row[key] for key in keys): row for row in first.to_pylist()}
    both_rows = [(first_rows[key], row) for row in second.to_pylist() if (key := tuple(row[name] for name in keys)) in first_rows]
    known_rows = [rows for rows in both_rows if all(row["outcome"] is not None for row in rows)]
    pairs = np.array([[_verdict(row) for row in rows] for rows in known_rows]).reshape(-1, 2)
    return [row["prompt_id"] for row, _ in known_rows], pairs


def _verdict(row: dict[str, Any]) -> float:
    outcome: float = row["outcome"]
    return outcome if row["rating"] is not None else float(np.sign(outcome - 0.5))


def _moments(pairs: np.ndarray) -> np.ndarray:
    """Of each pair the terms whose sums give both figures, shape (n, 6)."""
    x, y = pairs.T
    return np.stack([np.ones_like(x), x == y, (x - y) ** 2, x, y, x**2 + y**2], axis=1)


def _figures(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Agreement and kappa of each row of sums; kappa is NaN where all verdicts are equal."""
    n, matches, squares, x, y, own_squares = sums.T
    expected = own_squares / n - 2 * x * y / n**2
    with np.errstate(divide="ignore", invalid="ignore"):
        return {"judge_agreement": matches / n, "judge_kappa": np.where(expected > 1e-12, 1 - squares / n / expected, np.nan)}
