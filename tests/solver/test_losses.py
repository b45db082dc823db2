import torch

from eva_stages.solver.losses import length_normalized_nll


def test_every_response_counts_the_same_however_long() -> None:
    torch.manual_seed(0)
    logps = -torch.rand(3, 7, dtype=torch.float64)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [0, 1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0]])
    expected = sum(-logps[row][mask[row].bool()].mean() for row in range(3)) / 3
    assert torch.isclose(length_normalized_nll(logps, mask), expected, rtol=1e-12)


def test_a_response_without_tokens_gives_no_nan() -> None:
    assert length_normalized_nll(torch.zeros(1, 3), torch.zeros(1, 3)) == 0
