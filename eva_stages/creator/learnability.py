"""How learnable a prompt is by the share p of its successful responses, for rewards of 0 and 1; p over iterations by a Beta posterior."""

from collections.abc import Sequence

import numpy as np

from eva_stages.core.errors import DataError


def learnability(rewards: np.ndarray) -> np.ndarray:
    """p (1 - p) with p the share of responses with reward 1.

    Raises:
        DataError: if a reward is neither 0 nor 1.
    """
    other_rewards = rewards[(rewards != 0) & (rewards != 1)]
    if len(other_rewards):
        raise DataError(
            f"learnability is p (1 - p) for rewards of 0 and 1, and {len(other_rewards)} of {rewards.size} rewards are others, such as "
            f"{other_rewards[0]:g}; take a reward that gives only 0 and 1, or creator.metric=spread_at_median"
        )
    share = rewards.mean(axis=1)
    return share * (1 - share)


def success_evidence(shares: Sequence[np.ndarray], responses: int, discount: float) -> tuple[np.ndarray, np.ndarray]:
    """Discounted numbers of successes and failures: sum over s of discount ** s * n * p_s, and of discount ** s * n * (1 - p_s).

    Args:
        shares: the shares p_s of successes of the same prompts, s iterations ago, shape (prompts,) each; NaN = not scored then.
        responses: n, per prompt and iteration.
    """
    factors = [discount**age * responses for age in range(len(shares))]
    successes = sum(factor * np.nan_to_num(share) for factor, share in zip(factors, shares, strict=True))
    trials = sum(factor * np.isfinite(share) for factor, share in zip(factors, shares, strict=True))
    return np.asarray(successes), np.asarray(trials - successes)


def expected_learnability(successes: np.ndarray, failures: np.ndarray) -> np.ndarray:
    """E[p (1 - p)] = a b / ((a + b) (a + b + 1)) under Beta(a, b) with a = 1 + successes, b = 1 + failures."""
    a, b = 1 + successes, 1 + failures
    return a * b / ((a + b) * (a + b + 1))


def in_band(rewards: np.ndarray, low: float, high: float) -> np.ndarray:
    """Whether the share of successful responses is from `low` to `high`; False where a reward is missing.

    Raises:
        DataError: if a reward is neither 0 nor 1.
    """
    is_scored = np.isfinite(rewards).all(axis=1)
    other_rewards = rewards[np.isfinite(rewards) & (rewards != 0) & (rewards != 1)]
    if len(other_rewards):
        raise DataError(
            f"creator.curate.admit.band needs rewards of 0 and 1, and {len(other_rewards)} of {rewards.size} rewards are others, such as "
            f"{other_rewards[0]:g}; leave the band out, or take a reward that gives only 0 and 1"
        )
    shares = np.where(is_scored[:, None], rewards, 0.0).mean(axis=1)
    return is_scored & (shares >= low) & (shares <= high)
