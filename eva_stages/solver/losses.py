"""Losses as pure functions of log-probabilities, in nats.

Here is what TRL does not have, or has in another form than the paper: soft SPPO and the NLL term per response. The other losses
are TRL's own; tests hold every one against its formula.
"""

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


def sppo(
    chosen_logratios: torch.Tensor, rejected_logratios: torch.Tensor, chosen_wins: torch.Tensor, rejected_wins: torch.Tensor, beta: float
) -> torch.Tensor:
    """Soft SPPO (Wu et al. 2024, equation 4.7): 1/2 [(d_w - (P_w - 1/2) / beta)^2 + (d_l - (P_l - 1/2) / beta)^2].

    Args:
        chosen_logratios: d_w = log pi(y+|x) / pi_ref(y+|x), shape (batch,); `rejected_logratios` the same for y-.
        chosen_wins: P_w, the mean probability that y+ beats a response of the same prompt; `rejected_wins` the same for y-.
        beta: 1 / eta.

    Returns:
        Shape (batch,). With P_w = 1 and P_l = 0 half of TRL's `sppo_hard`.
    """
    chosen = (chosen_logratios - (chosen_wins - 0.5) / beta) ** 2
    rejected = (rejected_logratios - (rejected_wins - 0.5) / beta) ** 2
    return (chosen + rejected) / 2
