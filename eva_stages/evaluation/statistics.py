"""Scores with intervals that resample prompts: answers to one prompt are not independent, prompts are."""

from dataclasses import asdict, dataclass

import numpy as np

ROUNDS = 2000


@dataclass(frozen=True)
class Estimate:
    """A mean with its percentile bootstrap interval and the number of prompts behind it."""

    value: float
    low: float
    high: float
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
    tail = 50 * (1 - confidence)
    low, high = np.percentile(means, [tail, 100 - tail])
    return Estimate(float(known.mean()), float(low), float(high), len(known))
