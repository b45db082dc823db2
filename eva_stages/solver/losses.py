"""Loss terms as pure functions of log-probabilities."""

import torch


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
