"""Losses as pure functions of log-probabilities, in nats.

Only losses that TRL lacks, or has in another form than the paper: soft SPPO and the NLL term per response. The other
losses are TRL's own; tests compare every one with its formula.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch


class PairLogProbs(NamedTuple):
    """A micro batch of pairs as a loss reads it; every tensor has shape (batch,)."""

    policy_chosen: torch.Tensor
    """log pi(y+ | x), summed over the response's tokens, with gradient; `policy_rejected` the same for y-."""
    policy_rejected: torch.Tensor
    reference_chosen: torch.Tensor
    """log pi_ref(y+ | x); `reference_rejected` the same for y-."""
    reference_rejected: torch.Tensor
    chosen_tokens: torch.Tensor
    """Number of tokens of y+; `rejected_tokens` the same for y-."""
    rejected_tokens: torch.Tensor
    chosen_wins: torch.Tensor | None
    """Mean probability that y+ beats a response of the same prompt; None where the reward is pointwise. `rejected_wins`: of y-."""
    rejected_wins: torch.Tensor | None
    chosen_reward: torch.Tensor | None = None
    """Reward of y+; None where it is not known. `rejected_reward`: of y-."""
    rejected_reward: torch.Tensor | None = None


Loss = Callable[[PairLogProbs], tuple[torch.Tensor, Mapping[str, torch.Tensor | float]]]
"""From a micro batch to (the loss of each pair, metrics to log by name)."""


def length_normalized_nll(logps: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over responses of (1 / |y|) * -log pi(y | x): every response counts the same, however long [paper, table 6].

    Args:
        logps: log-probabilities of the tokens, shape (batch, length).
        mask: 1 on response tokens, shape (batch, length).

    Returns:
        A scalar in nats per token.
    """
    lengths = mask.sum(dim=1).clamp(min=1)
    return (-(logps * mask).sum(dim=1) / lengths).mean()


def sppo(pairs: PairLogProbs, beta: float) -> tuple[torch.Tensor, dict[str, float]]:
    """Soft SPPO (Wu et al. 2024, equation 4.7): 1/2 [(d_w - (P_w - 1/2) / beta)^2 + (d_l - (P_l - 1/2) / beta)^2].

    d = log pi(y|x) / pi_ref(y|x), P = the response's win probability, beta = 1 / eta. With P_w = 1 and P_l = 0 it is half of TRL's
    `sppo_hard`.
    """
    assert pairs.chosen_wins is not None and pairs.rejected_wins is not None
    chosen = (pairs.policy_chosen - pairs.reference_chosen - (pairs.chosen_wins - 0.5) / beta) ** 2
    rejected = (pairs.policy_rejected - pairs.reference_rejected - (pairs.rejected_wins - 0.5) / beta) ** 2
    return (chosen + rejected) / 2, {}


def sibling_rloo(pairs: PairLogProbs, beta: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """RLOO over n recorded responses of a prompt, as a sum over their pairs.

    With R_i = r_i - beta log(pi(y_i) / pi_ref(y_i)) and the mean of the others' as baseline, sum_i A_i log pi(y_i) is 1 / (n - 1) times the
    sum over all pairs i < j of (R_i - R_j) (log pi(y_i) - log pi(y_j)). The mean over pairs of half of that is RLOO's mean over responses.
    The gradient does not pass through R.
    """
    assert pairs.chosen_reward is not None and pairs.rejected_reward is not None
    divergence = (pairs.policy_chosen - pairs.reference_chosen) - (pairs.policy_rejected - pairs.reference_rejected)
    advantage = (pairs.chosen_reward - pairs.rejected_reward - beta * divergence).detach()
    return -advantage * (pairs.policy_chosen - pairs.policy_rejected) / 2, {"advantage": advantage.mean()}


def best_sibling(pairs: PairLogProbs) -> tuple[torch.Tensor, dict[str, float]]:
    """-log pi(y+) / |y+|: the rejected response is left out."""
    return -pairs.policy_chosen / pairs.chosen_tokens, {}
