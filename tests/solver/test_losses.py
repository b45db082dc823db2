# ruff: noqa: E741 - w wins and l loses, as in the paper
"""Every loss that a recipe can name, as its trainer computes it, against its formula in float64: value and gradient."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from eva_stages.core.config.solver_config import OtherDPO
from eva_stages.core.errors import DataError
from eva_stages.core.tables import read_table
from eva_stages.solver import experimental, preference
from eva_stages.solver.loss_calls import checked_loss
from eva_stages.solver.losses import PairLogProbs, length_normalized_nll, sppo
from eva_stages.solver.references import COLUMNS
from eva_stages.solver.train import trainer_target
from tests.solver.jobs import job, save_models, save_pairs

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "dpo": ("dpo", {}),
    "dpo + nll": ("dpo", {"nll_alpha": 0.7}),
    "dpo, length normalised": ("dpo", {"length_normalized": True, "beta": 2.0}),
    "dpo, long tails at half weight": ("dpo", {"ld_alpha": 0.5}),
    "ipo": ("ipo", {"beta": 0.5}),
    "sppo": ("sppo", {}),
    "sppo + nll": ("sppo", {"nll_alpha": 0.7, "beta": 0.3}),
    "simpo": ("simpo", {}),
    "simpo + nll": ("simpo", {"nll_alpha": 0.7}),
    "orpo": ("orpo", {}),
    "orpo, nll at half weight": ("orpo", {"nll_alpha": 0.5}),
    "exo_pair": ("exo_pair", {"label_smoothing": 0.001}),
    "robust": ("robust", {"label_smoothing": 0.1}),
    **{name: (name, {}) for name in get_args(OtherDPO.model_fields["kind"].annotation) if name not in ("exo_pair", "robust")},
}
Formula = Callable[..., Tensor]
PRECISION = 1e-5
"""Relative. TRL's log-probabilities are float32: 2^-24 of a sum of 60 nats, times beta 0.1, is 4e-7 in a log-ratio."""
AMPLIFICATION = {"discopop": 20}
"""Losses that divide a log-ratio, and so its rounding, by a temperature (0.05)."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("losses")
    return {**save_models(root), "pairs": save_pairs(root / "pairs", count=8)}


def sig(x: Tensor) -> Tensor:
    return -F.softplus(-x)  # log sigmoid


def sorted_loss(first: Tensor, second: Tensor, beta: float) -> Tensor:
    return -sig(beta * (first.sort().values - second.sort().values))


def exo(x: Tensor, e: float) -> Tensor:
    win, lose = x.sigmoid(), (-x).sigmoid()
    return win * (win.log() - math.log(1 - e)) + lose * (lose.log() - math.log(e))


def discopop(x: Tensor) -> Tensor:
    mixture = (x / 0.05).sigmoid()
    return -sig(x) * (1 - mixture) + (-x).exp() * mixture


FORMULAS: dict[str, Formula] = {
    # w, l: policy's sums; rw, rl: reference's; b: beta
    "dpo": lambda w, l, rw, rl, b, **_: -sig(b * ((w - rw) - (l - rl))),
    "hinge": lambda w, l, rw, rl, b, **_: (1 - b * ((w - rw) - (l - rl))).clamp(min=0),
    "ipo": lambda w, l, rw, rl, b, nw, nl, **_: ((w - rw) / nw - (l - rl) / nl - 1 / (2 * b)) ** 2,
    "sppo": lambda w, l, rw, rl, b, pw, pl, **_: 0.5 * ((w - rw - (pw - 0.5) / b) ** 2 + (l - rl - (pl - 0.5) / b) ** 2),
    "sppo_hard": lambda w, l, rw, rl, b, **_: (w - rw - 0.5 / b) ** 2 + (l - rl + 0.5 / b) ** 2,
    "simpo": lambda w, l, b, nw, nl, **_: -sig(b * (w / nw - l / nl - 0.5)),
    "orpo": lambda w, l, b, nw, nl, **_: -b * sig((w / nw).exp().logit().sub((l / nl).exp().logit())),
    "exo_pair": lambda w, l, rw, rl, b, **_: exo(b * ((w - rw) - (l - rl)), 0.001),
    "robust": lambda w, l, rw, rl, b, **_: (
        -0.9 * sig(b * ((w - rw) - (l - rl))) + 0.1 * sig(-b * ((w - rw) - (l - rl)))
    ) / 0.8,
    "nca_pair": lambda w, l, rw, rl, b, **_: -sig(b * (w - rw)) - 0.5 * sig(-b * (w - rw)) - 0.5 * sig(-b * (l - rl)),
    "bco_pair": lambda w, l, rw, rl, b, **_: -sig(b * (w - rw)) - sig(-b * (l - rl)),
    "aot": lambda w, l, rw, rl, b, **_: sorted_loss(w - l, rw - rl, b),
    "aot_unpaired": lambda w, l, rw, rl, b, **_: sorted_loss(w - rw, l - rl, b),
    "apo_zero": lambda w, l, rw, rl, b, **_: 1 - (b * (w - rw)).sigmoid() + (b * (l - rl)).sigmoid(),
    "apo_down": lambda w, l, rw, rl, b, **_: (b * (w - rw)).sigmoid() + 1 - (b * ((w - rw) - (l - rl))).sigmoid(),
    "discopop": lambda w, l, rw, rl, b, **_: discopop(b * ((w - rw) - (l - rl))),
}  # fmt: skip


def response_logps(model: Any, tokenizer: Any, prompt: list[dict], response: list[dict]) -> Tensor:
    """log pi of each response token, one conversation at a time, without padding or masks."""
    prompt_ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"]
    whole = tokenizer.apply_chat_template(prompt + response, return_dict=True)["input_ids"]
    assert whole[: len(prompt_ids)] == prompt_ids
    logps = model(torch.tensor([whole])).logits[0].log_softmax(dim=-1)
    return torch.stack([logps[place - 1, whole[place]] for place in range(len(prompt_ids), len(whole))])


def expected(kind: str, loss: dict[str, Any], folders: dict[str, str], reference_sums: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean loss over all pairs in float64, and its gradient by parameter.

    Args:
        reference_sums: the reference's sums as the trainer has them, in float32, shape (2, pairs); None where the loss has no
            reference. They are held against float64 here, and the formula takes them as they are: some losses amplify their rounding
            a thousandfold.
    """
    words = AutoTokenizer.from_pretrained(folders["policy"])
    policy, reference = (AutoModelForCausalLM.from_pretrained(folders[name], dtype=torch.float64) for name in ("policy", "reference"))
    rows = read_table(Path(folders["pairs"])).to_pylist()
    sides = ("chosen", "rejected")
    our_logps = [[response_logps(policy, words, row["prompt"], row[side]) for row in rows] for side in sides]
    with torch.no_grad():
        their_logps = [[response_logps(reference, words, row["prompt"], row[side]) for row in rows] for side in sides]

    def sums(tokens: list[list[Tensor]], side: int) -> Tensor:
        alpha = 1.0 if loss.get("ld_alpha") is None else loss["ld_alpha"]
        shortest = [min(len(w), len(l)) for w, l in zip(*tokens, strict=True)]
        return torch.stack(
            [token_logps[:n].sum() + alpha * token_logps[n:].sum() for token_logps, n in zip(tokens[side], shortest, strict=True)]
        )

    lengths = [torch.tensor([len(response_logps_of_pair) for response_logps_of_pair in side], dtype=torch.float64) for side in our_logps]
    w, l, rw, rl = sums(our_logps, 0), sums(our_logps, 1), sums(their_logps, 0), sums(their_logps, 1)
    if reference_sums is not None:
        assert torch.allclose(reference_sums.double(), torch.stack([rw, rl]), rtol=1e-5)
        rw, rl = reference_sums.double()
    if loss.get("length_normalized"):
        w, l, rw, rl = w / lengths[0], l / lengths[1], rw / lengths[0], rl / lengths[1]
    wins = [torch.tensor([row[f"{side}_win_probability"] for row in rows], dtype=torch.float64) for side in sides]
    pairs = FORMULAS[kind](w=w, l=l, rw=rw, rl=rl, b=loss["beta"], nw=lengths[0], nl=lengths[1], pw=wins[0], pl=wins[1])
    nll = torch.stack([-response.mean() for response in our_logps[0]])
    value = (pairs + loss["nll_alpha"] * nll).mean()
    value.backward()
    return value.detach(), {name: parameter.grad for name, parameter in policy.named_parameters()}


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient_are_the_formula_in_float64(case: str, folders: dict[str, str], tmp_path: Path) -> None:
    kind, loss = CASES[case]
    settings = job(tmp_path, folders, kind, loss=loss, batch_size=8, micro_batch_size=8)
    module = experimental if trainer_target(kind).startswith("eva_stages.solver.experimental") else preference
    trainer, counts = module.make_trainer(settings)
    assert counts["pairs"] == 8
    columns = [trainer.train_dataset[name] for name in COLUMNS if name in trainer.train_dataset.column_names]
    (batch,) = trainer.get_train_dataloader()
    trainer.model.train().double()  # how float32 rounds depends on the processor's kernels
    value = trainer.compute_loss(trainer.model, batch)
    value.backward()
    wanted_loss, gradients = expected(kind, settings.loss.model_dump(), folders, torch.tensor(columns) if columns else None)
    assert abs(value.double() - wanted_loss) < PRECISION * abs(wanted_loss)
    errors, norms = zip(
        *(
            ((parameter.grad.double() - gradients[name]).norm(), gradients[name].norm())
            for name, parameter in trainer.model.named_parameters()
        ),
        strict=True,
    )
    assert torch.stack(norms).norm() > 0
    assert torch.stack(errors).norm() < PRECISION * AMPLIFICATION.get(kind, 1) * torch.stack(norms).norm()


def pairs(w: Tensor, l: Tensor, pw: Tensor, pl: Tensor) -> PairLogProbs:
    """Pairs whose reference gives every response probability 1."""
    zero = torch.zeros_like(w)
    return PairLogProbs(w, l, zero, zero, zero, zero, pw, pl)


def test_the_first_step_of_a_loss_has_a_closed_form() -> None:
    zero, wins, beta = torch.zeros(3, dtype=torch.float64), torch.tensor([0.9, 0.6, 0.75], dtype=torch.float64), 0.001
    values, _ = sppo(pairs(zero, zero, wins, 1 - wins), beta)
    assert torch.allclose(values, ((wins - 0.5) / beta) ** 2, rtol=1e-12)


def test_soft_sppo_at_certain_wins_is_half_of_sppo_hard() -> None:
    torch.manual_seed(0)
    w, l = torch.randn(2, 5, dtype=torch.float64)
    hard = FORMULAS["sppo_hard"](w=w, l=l, rw=0, rl=0, b=0.1)
    values, _ = sppo(pairs(w, l, torch.ones(5), torch.zeros(5)), 0.1)
    assert torch.allclose(values, hard / 2, rtol=1e-12)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda values: (values.mean(), {}), r"shape \(\); return a tensor of shape \(3,\)"),
        (lambda values: (values.detach(), {}), "depends on the policy's log-probabilities"),
        (lambda values: values, "it takes `PairLogProbs` and returns"),
        (lambda values: (values, {"loss": values.mean()}), "a metric named .*loss"),
        (lambda values: (values, {"rewards/margins": 1.0}), "a metric named .*rewards"),
    ],
)
def test_a_loss_with_a_wrong_result_is_an_error_that_says_what_is_allowed(result: Callable[[Tensor], Any], message: str) -> None:
    values = torch.ones(3, requires_grad=True)
    with pytest.raises(DataError, match=message):
        checked_loss(pairs(values, values, values, values), lambda batch: result(batch.policy_chosen))


def test_every_response_counts_the_same_however_long() -> None:
    torch.manual_seed(0)
    logps = -torch.rand(3, 7, dtype=torch.float64)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [0, 1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0]])
    wanted_mean = sum(-logps[row][mask[row].bool()].mean() for row in range(3)) / 3
    assert torch.isclose(length_normalized_nll(logps, mask), wanted_mean, rtol=1e-12)


def test_a_response_without_tokens_gives_no_nan() -> None:
    assert length_normalized_nll(torch.zeros(1, 3), torch.zeros(1, 3)) == 0
