"""Losses as pure functions of log-probabilities, in nats.

These are the ones that TRL does not have, or has in another form than the paper: soft SPPO and the NLL term per response. The other
losses are TRL's own; tests compare every one with its formula.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.rewards_config import PairwiseReward
from eva_stages.core.errors import DataError
from eva_stages.core.failures import error_reason


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


Loss = Callable[[PairLogProbs], tuple[torch.Tensor, Mapping[str, torch.Tensor | float]]]
"""From a micro batch to (the loss of each pair, metrics to log by name)."""


def checked_loss(pairs: PairLogProbs, loss: Loss) -> tuple[torch.Tensor, Mapping[str, torch.Tensor | float]]:
    """The result of a loss.

    Raises:
        DataError: if the loss raises, or does not return one number with a gradient per pair and a dict of metrics.
    """
    try:
        values, metrics = loss(pairs)
        numbers = {name: float(torch.as_tensor(value).detach()) for name, value in metrics.items()}
    except Exception as error:
        raise DataError(f"the loss raised {error_reason(error)}; it takes `PairLogProbs` and returns (losses, metrics)") from error
    if not isinstance(values, torch.Tensor) or values.shape != pairs.policy_chosen.shape or not values.requires_grad:
        result = f"shape {tuple(values.shape)}" if isinstance(values, torch.Tensor) else type(values).__name__
        expectation = f"return a tensor of shape {tuple(pairs.policy_chosen.shape)} that depends on the policy's log-probabilities"
        raise DataError(f"the loss returned {result}; {expectation}")
    return values, numbers


def check_loss(loss: Loss, recipe: Recipe) -> None:
    """Compute a loss and its gradient for three pairs, the first of which is as likely under the policy as under the reference.

    Raises:
        DataError: as `checked_loss` says, and if a loss or a gradient is not finite.
    """
    chosen, rejected = (torch.tensor(values, requires_grad=True) for values in ([-12.0, -30.0, -4.5], [-14.0, -25.0, -60.0]))
    wins = (torch.tensor([0.75, 0.5, 1.0]), torch.tensor([0.25, 0.5, 0.0])) if isinstance(recipe.reward, PairwiseReward) else (None, None)
    reference = torch.tensor([-12.0, -31.0, -4.0]), torch.tensor([-14.0, -20.0, -50.0])
    tokens = torch.tensor([6, 12, 2]), torch.tensor([7, 10, 25])
    values, _ = checked_loss(PairLogProbs(chosen, rejected, *reference, *tokens, *wins), loss)
    values.sum().backward()
    if not all(torch.isfinite(tensor).all() for tensor in (values, chosen.grad, rejected.grad) if tensor is not None):
        raise DataError(f"the loss or its gradient is not finite: {[round(value, 3) for value in values.tolist()]}")


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
