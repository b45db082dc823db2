"""Calls of a loss that a recipe names: the result is checked at every micro batch, and once with a sample before anything runs."""

from collections.abc import Mapping

import torch

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.rewards_config import PairwiseReward
from eva_stages.core.decoding import short
from eva_stages.core.errors import DataError
from eva_stages.core.failures import CALL_ERRORS, error_reason
from eva_stages.solver.losses import Loss, PairLogProbs

LOGGED_FIGURES = ("loss", "grad_norm", "learning_rate", "epoch", "step", "nll", "entropy", "mean_token_accuracy", "num_tokens")
"""What the trainer logs under these names, a metric of the same name would replace."""


def checked_loss(pairs: PairLogProbs, loss: Loss) -> tuple[torch.Tensor, Mapping[str, torch.Tensor | float]]:
    """The result of a loss.

    Raises:
        DataError: if the loss raises, or does not return one number with a gradient per pair and a dict of metrics with names of their own.
    """
    try:
        values, metrics = loss(pairs)
        numbers = {name: float(torch.as_tensor(value).detach()) for name, value in metrics.items()}
    except CALL_ERRORS as error:
        raise DataError(f"the loss raised {error_reason(error)}; it takes `PairLogProbs` and returns (losses, metrics)") from error
    if not isinstance(values, torch.Tensor) or values.shape != pairs.policy_chosen.shape or not values.requires_grad:
        result = f"shape {tuple(values.shape)}" if isinstance(values, torch.Tensor) else type(values).__name__
        expectation = f"return a tensor of shape {tuple(pairs.policy_chosen.shape)} that depends on the policy's log-probabilities"
        raise DataError(f"the loss returned {result}; {expectation}")
    if names := [name for name in numbers if not isinstance(name, str) or name in LOGGED_FIGURES or "/" in name]:
        expectation = f"a name is a text without / that is not one of {', '.join(LOGGED_FIGURES)}"
        raise DataError(f"the loss returned a metric named {short(names[0])}; {expectation}")
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
