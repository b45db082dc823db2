"""TRL's on-policy trainers as eva uses them: prompts as `conversation` renders them, in an order that a resumed training reproduces.

`OnPolicyTrainer` is what they share. A response that could not be scored (reward None) is left out of the baselines and has no gradient;
the mean of a step's loss is over all its responses, so that a failed reward gives no other response more weight.

Online DPO has a trainer of TRL too, which samples two responses to a prompt. Here it is TRL's policy gradient with other advantages. At
the policy that sampled, the gradient of -log sigmoid(beta D), D = log-ratio of the best response less that of the worst, is the policy
gradient with advantage beta sigmoid(-beta D) for the best, its negative for the worst and 0 for the others (`preference_advantages`). So
micro batches and processes may divide the responses of a prompt in any way.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate.utils import gather
from datasets import Dataset
from torch.utils.data import Sampler
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from eva_stages.core.config.solver_config import GRPO, OnlineDPO, OnPolicyLoss
from eva_stages.core.rows import Message
from eva_stages.models.conversation import Chat

PER_RESPONSE = "per_response/"
"""Prefix of the names of logged means over responses; the manifest has their sums."""
PAIR_COUNT = "pairs"


class PromptGroups(Sampler[int]):
    """Row numbers of an epoch in groups as TRL's trainer takes them, in an order that is a function of (seed, epoch).

    TRL's own sampler continues its random stream across epochs, which a resumed training cannot reproduce.

    Args:
        prompts_per_step: prompts of an optimiser step; a remainder at the end of an epoch is dropped.
        n: responses per prompt.
        micro: micro steps of an optimiser step, each of which gets all prompts of the step.
    """

    def __init__(self, rows: int, prompts_per_step: int, n: int, micro: int, seed: int) -> None:
        self._rows, self._prompts_per_step, self._n, self._micro, self._seed = rows, prompts_per_step, n, micro, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return self._rows // self._prompts_per_step * self._prompts_per_step * self._n * self._micro

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng([self._seed, self._epoch]).permutation(self._rows)
        for start in range(0, self._rows // self._prompts_per_step * self._prompts_per_step, self._prompts_per_step):
            yield from np.tile(order[start : start + self._prompts_per_step].repeat(self._n), self._micro).tolist()


class OnPolicyTrainer:
    """Mixed into a trainer of TRL that samples and scores responses.

    `_generate_and_score_completions` gets the prompts of a step, each of them n times in a row, and returns the batch that is trained on.
    """

    rewards: torch.Tensor
    """Of all responses of the last batch on all processes, NaN where there is none; shape (responses,), n in a row per prompt."""
    accelerator: Any
    args: Any
    num_generations: int
    train_dataset: Any

    def __init__(self, *, chat: Chat, **settings: Any) -> None:
        self._chat = chat
        super().__init__(**settings)

    def _tokenize_prompts(self, prompts: list[list[Message]]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [self._chat.prompt_ids(messages) for messages in prompts], None, {}

    def _get_train_sampler(self, dataset: Dataset | None = None) -> PromptGroups:
        rows = len(self.train_dataset if dataset is None else dataset)
        prompts_per_step = self.args.generation_batch_size // self.num_generations
        return PromptGroups(rows, prompts_per_step, self.num_generations, self.args.steps_per_generation, self.args.seed)

    def _calculate_rewards(self, *batch: Any) -> torch.Tensor:
        rewards: torch.Tensor = super()._calculate_rewards(*batch)  # type: ignore[misc]
        self.rewards = rewards[:, 0]
        return rewards

    def own_rows(self, values: torch.Tensor, rows: int) -> torch.Tensor:
        """This process's part of values of all responses; `rows`: its responses."""
        start = self.accelerator.process_index * rows
        return values[start : start + rows]


class LeaveOneOutTrainer(OnPolicyTrainer, RLOOTrainer):
    """With R_i = r(x, y_i) - beta log pi(y_i | x) / pi_ref(y_i | x), a response's advantage A_i is R_i less the mean of the others', and
    the loss -A_i log pi(y_i | x) (Ahmadian et al. 2024)."""


class GroupRelativeTrainer(OnPolicyTrainer, GRPOTrainer):
    """A_i = (r_i - mean) / (std + 1e-4) over the scored responses of a prompt, std with Bessel's correction; the loss is the mean over all
    tokens of a step of -A_i log pi(token) + beta KL, with the unbiased gradient of the reverse KL divergence."""

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        # TRL gives a response without a reward the advantage 0, and would still train on its KL divergence
        batch["completion_mask"][self.own_rows(self.rewards, len(inputs)).isnan()] = 0
        return batch


class Preferences(NamedTuple):
    """The best and the worst response to each prompt of a step, as training reads them; shape (prompts, n) unless stated otherwise."""

    advantages: torch.Tensor
    losses: torch.Tensor
    """The loss of a pair, half of it on each response, in the units of a mean over responses."""
    margins: torch.Tensor
    """beta times the difference of log-ratios, shape (pairs,)."""


def preference_advantages(rewards: torch.Tensor, log_ratios: torch.Tensor, beta: float, min_gap: float) -> Preferences:
    """The gradient of DPO on the best against the worst of n responses as advantages of a policy gradient.

    The mean over responses of -A_i log pi(y_i) has the gradient of the mean over prompts of -log sigmoid(beta D); a prompt without a pair
    counts 0. Of equal rewards the first is taken.

    Args:
        rewards: shape (prompts, n), NaN where a response could not be scored.
        log_ratios: log pi(y | x) / pi_ref(y | x) at the policy that sampled, shape (prompts, n).
        min_gap: a pair's rewards differ by more.
    """
    is_scored = rewards.isfinite()
    best = rewards.where(is_scored, -torch.inf).argmax(dim=1, keepdim=True)
    worst = rewards.where(is_scored, torch.inf).argmin(dim=1, keepdim=True)
    has_pair = is_scored.any(dim=1, keepdim=True) & (rewards.gather(1, best) - rewards.gather(1, worst) > min_gap)
    margins = beta * (log_ratios.gather(1, best) - log_ratios.gather(1, worst))
    n = rewards.shape[1]
    weights = (n * beta * torch.sigmoid(-margins)).where(has_pair, 0.0)
    halves = (-n / 2 * torch.nn.functional.logsigmoid(margins)).where(has_pair, 0.0)
    zeros = torch.zeros_like(log_ratios)
    advantages = zeros.scatter_add(1, best, weights).scatter_add(1, worst, -weights)
    losses = zeros.scatter_add(1, best, halves).scatter_add(1, worst, halves)
    return Preferences(advantages, losses, margins[has_pair])


class PreferenceTrainer(OnPolicyTrainer, RLOOTrainer):
    """-log sigmoid(beta D) on the best and the worst response to each prompt (Guo et al. 2024, with n responses)."""

    def __init__(self, *, min_gap: float, **settings: Any) -> None:
        self._min_gap = min_gap
        self._log_probs: list[torch.Tensor] = []
        super().__init__(**settings)

    def _get_per_token_logps_and_entropies(self, *arguments: Any, **settings: Any) -> tuple[torch.Tensor, Any, Any]:
        output: tuple[torch.Tensor, Any, Any] = super()._get_per_token_logps_and_entropies(*arguments, **settings)
        if not torch.is_grad_enabled():
            self._log_probs.append(output[0])
        return output

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._log_probs.clear()
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        policy, reference = self._log_probs  # TRL computes them in this order
        log_ratios = gather(((policy - reference) * batch["completion_mask"]).sum(dim=1))
        n = self.num_generations
        preferences = preference_advantages(self.rewards.view(-1, n), log_ratios.view(-1, n), self.beta, self._min_gap)
        batch["advantages"] = self.own_rows(preferences.advantages.flatten(), len(inputs))
        batch["pair_losses"] = self.own_rows(preferences.losses.flatten(), len(inputs))
        metrics = self._metrics["train" if self.model.training else "eval"]
        metrics[PER_RESPONSE + PAIR_COUNT].append(len(preferences.margins) / len(log_ratios))
        if len(preferences.margins):
            metrics["rewards/margins"].append(preferences.margins.mean().item())
            metrics["rewards/accuracies"].append((preferences.margins > 0).float().mean().item())
        return batch

    def _compute_loss(self, model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """TRL's loss, whose value is 0 at the policy that sampled, with the value of DPO's. Only the responses of pairs are computed."""
        rows = inputs["advantages"].nonzero().squeeze(1)
        rows = rows if len(rows) else rows.new_zeros(1)  # every process runs the model equally often
        share = len(rows) / len(inputs["advantages"])
        pairs = {name: values[rows] for name, values in inputs.items()}
        surrogate: torch.Tensor = super()._compute_loss(model, {**pairs, "advantages": pairs["advantages"] * share})
        return surrogate - surrogate.detach() + inputs["pair_losses"].mean()


def trainer_and_arguments(loss: OnPolicyLoss, temperature: float, min_gap: float) -> tuple[type, dict[str, Any], type, dict[str, Any]]:
    """The trainer of a loss, arguments of the trainer, its configuration class, and arguments of that.

    RLOO and GRPO are gradients of the distribution that is sampled from, with logits divided by the temperature. DPO's
    log-ratios are those of the policy itself, as in training on pairs, so that only sampling gets the temperature.
    """
    if isinstance(loss, OnlineDPO):
        # one update per sample: a ratio other than 1 is rounding, which must not be clipped
        settings = {"temperature": 1.0, "generation_kwargs": {"temperature": temperature}, "epsilon": 1e6}
        return PreferenceTrainer, {"min_gap": min_gap}, RLOOConfig, settings
    if isinstance(loss, GRPO):
        objective = {"loss_type": "dapo", "scale_rewards": "group", "use_bias_correction_kl": True}
        return GroupRelativeTrainer, {}, GRPOConfig, {"temperature": temperature, **objective}
    return LeaveOneOutTrainer, {}, RLOOConfig, {"temperature": temperature}
