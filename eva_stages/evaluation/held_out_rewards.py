"""Is the training reward exploited? Figures of a second reward, which training never sees, on the same responses.

Let t_k(q) and h_k(q) be the mean training and held-out reward of policy k's responses to question q (k = -1: the base policy), n the number
of questions that have all of them, and sd the standard deviation of the rewards of the base policy's responses. Then

    gain of a reward   (mean_q r_k(q) - mean_q r_-1(q)) / sd, for r = t and r = h                                         (1)
    best               b = argmax_{j < k} mean_q h_j(q)
    decrease           d(q) = h_b(q) - h_k(q)
    p value            min(1, m P(T_{n-1} >= sqrt(n) mean(d) / sd(d))) if mean_q t_k(q) > mean_q t_b(q), else 1           (2)

(2) is the one-sided paired t test with questions as the unit, times the number m of earlier policies among which b was chosen
[Bonferroni]. Where no policy is worse than another one, (2) is at most p in at most a share p of the iterations. The case that it is made
for is reward overoptimisation [Gao et al. 2023]: the training reward keeps rising while the reward that it stands for falls.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from eva_stages.core.kinds import BASE
from eva_stages.core.numeric import drawable
from eva_stages.core.tables import per_prompt_mean, read_table, reward_matrix

Figures = dict[str, float | None]


class Rewards(NamedTuple):
    """The mean reward of one policy's responses to each question, arrays of shape (questions,), NaN where unknown."""

    held_out_means: np.ndarray
    training: np.ndarray | None
    """None: levels of the training reward cannot be compared between policies."""


def held_out_figures(inputs: Mapping[str, Path]) -> Figures:
    """The figures of an iteration, from reward stages: `rewards` and `held_out` of its policy, `held_out_base`, `held_out_0`, ... of every
    earlier policy, and `rewards_base`, `rewards_0`, ... if levels of the training reward can be compared."""
    earlier_names = [name.removeprefix("held_out_") for name in inputs if name.startswith("held_out_")]
    is_comparable = f"rewards_{BASE}" in inputs

    def rewards_of(suffix: str) -> Rewards:
        return Rewards(_question_means(inputs[f"held_out{suffix}"]), _question_means(inputs[f"rewards{suffix}"]) if is_comparable else None)

    policy, earlier = rewards_of(""), {name: rewards_of(f"_{name}") for name in earlier_names}
    base = earlier[BASE]
    training_gain = None
    if policy.training is not None and base.training is not None:
        training_gain = gain(policy.training, base.training, _responses(inputs[f"rewards_{BASE}"]))
    return {
        "held_out_reward": _mean(policy.held_out_means),
        "reward_gain": training_gain,
        "held_out_gain": gain(policy.held_out_means, base.held_out_means, _responses(inputs[f"held_out_{BASE}"])),
        **divergence(policy, list(earlier.values())),
    }


def gain(means: np.ndarray, base_means: np.ndarray, base_responses: np.ndarray) -> float | None:
    """(1), over the questions that both have; None if there are none, or if the rewards of the base policy's responses, shape (responses,),
    are all equal."""
    difference, spread = _mean(means - base_means), float(np.nanstd(base_responses)) if np.isfinite(base_responses).any() else 0.0
    return None if difference is None or not spread else difference / spread


def divergence(policy: Rewards, earlier: Sequence[Rewards]) -> Figures:
    """`held_out_change` since the best earlier policy, its standard error, and `reward_divergence`, the p value (2).

    All are None with fewer than two questions, and the p value is without comparable training rewards.
    """
    policies = (policy, *earlier)
    held_out_means = np.stack([rewards.held_out_means for rewards in policies])
    levels = [rewards.training for rewards in policies if rewards.training is not None]
    training = np.stack(levels) if len(levels) == len(policies) else np.zeros_like(held_out_means)
    is_known = np.isfinite(held_out_means).all(axis=0) & np.isfinite(training).all(axis=0)
    n = int(is_known.sum())
    if n < 2:
        return dict.fromkeys(("held_out_change", "held_out_change_error", "reward_divergence"))
    held_out_means, training = held_out_means[:, is_known], training[:, is_known]
    best = 1 + int(np.argmax(held_out_means[1:].mean(axis=1)))
    decrease = held_out_means[best] - held_out_means[0]
    p_value = None
    if levels:
        has_risen = training[0].mean() > training[best].mean()
        p_value = min(1.0, len(earlier) * decrease_p(decrease)) if has_risen else 1.0
    return {
        "held_out_change": 0.0 - float(decrease.mean()),  # not -0.0
        "held_out_change_error": float(decrease.std(ddof=1)) / math.sqrt(n),
        "reward_divergence": p_value,
    }


def decrease_p(decrease: np.ndarray) -> float:
    """The one-sided p value of the paired t test, of the questions' differences, shape (n,), n at least 2; of the sign test, 2^-n, where
    all differences are equal."""
    error = float(decrease.std(ddof=1)) / math.sqrt(len(decrease))
    if not error:
        return 0.5 ** len(decrease) if decrease[0] > 0 else 1.0
    return float(stats.t.sf(decrease.mean() / error, len(decrease) - 1))


def _question_means(rewards: Path) -> np.ndarray:
    """The mean reward of each question; the stages of all policies have the same questions in the same order."""
    return drawable(per_prompt_mean(read_table(rewards, ["rewards"]), "rewards"))


def _responses(rewards: Path) -> np.ndarray:
    return drawable(reward_matrix(read_table(rewards, ["rewards"])["rewards"]).ravel())


def _mean(values: np.ndarray) -> float | None:
    """The mean of the known values; None if there are none."""
    known_values = values[np.isfinite(values)]
    return float(known_values.mean()) if len(known_values) else None
