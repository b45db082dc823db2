"""SimPO and ORPO on TRL's experimental trainers. Nothing else imports those: a TRL that drops them breaks this file alone.

Two things differ from TRL. `tokens` computes the token ids, as for every other loss. And the NLL term is the paper's, per response and
over the response alone: TRL's is a mean over the tokens of a micro batch (ORPO's over the prompts' too), so that how a batch is cut
into micro batches would change the loss.
"""

from typing import Any

import torch
from accelerate import PartialState
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from eva_stages.core.config.solver_config import ORPO, SimPO
from eva_stages.models.loading import load_tokenizer
from eva_stages.solver.fitting import CompleteSteps, common_arguments, fit, load_policy, lora, tokenized_pairs
from eva_stages.solver.job import TrainingJob


class ReferenceFree(CompleteSteps):
    """What both trainers need to work on token ids with the paper's NLL term."""

    nll_alpha = 0.0

    def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:
        prompt = feature["prompt_ids"]
        row = {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}
        for side in ("chosen", "rejected"):
            ids = prompt + feature[f"{side}_ids"]
            labels = [-100] * len(prompt) + feature[f"{side}_ids"]
            row |= {f"{side}_input_ids": ids, f"{side}_attention_mask": [1] * len(ids), f"{side}_labels": labels}
        return row

    def concatenated_forward(self, model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, ...]:
        """TRL's, with the NLL term exchanged; both trainers give log-probabilities per token here."""
        chosen, rejected, chosen_logits, rejected_logits, _, *rest = super().concatenated_forward(model, batch)  # type: ignore[misc]
        return chosen, rejected, chosen_logits, rejected_logits, -self.nll_alpha * chosen.mean(), *rest


class SimPOTrainer(ReferenceFree, CPOTrainer):
    """-log sigmoid(beta (log pi(y+)/|y+| - log pi(y-)/|y-| - gamma/beta)), and the NLL term."""


class OddsRatioTrainer(ReferenceFree, ORPOTrainer):
    """The NLL term, and -lambda log sigmoid(log odds(y+) - log odds(y-)) with odds of the probability per token."""


def trainer_and_arguments(loss: SimPO | ORPO) -> tuple[type, type, dict[str, Any]]:
    """The trainer of a loss, its configuration class, and the loss as TRL's configuration."""
    if isinstance(loss, SimPO):
        cpo_alpha = float(loss.nll_alpha > 0)  # cpo_alpha adds the term exchanged above, which has its weight already
        return SimPOTrainer, CPOConfig, {"loss_type": "simpo", "simpo_gamma": loss.gamma_ratio * loss.beta, "cpo_alpha": cpo_alpha}
    return OddsRatioTrainer, ORPOConfig, {}


def train(job: TrainingJob) -> None:
    """One round of preference optimisation without a reference policy."""
    trainer, counts = make_trainer(job)
    fit(trainer, job, counts)


def make_trainer(job: TrainingJob) -> tuple[Any, dict[str, int]]:
    """The trainer of a job, and the counts of its pairs."""
    assert isinstance(job.loss, SimPO | ORPO)
    tokenizer = load_tokenizer(str(job.policy))
    _, pairs, counts = tokenized_pairs(job, tokenizer)
    trainer_class, config, arguments = trainer_and_arguments(job.loss)
    settings = common_arguments(job, len(pairs), PartialState().num_processes)
    trainer_config = config(**settings, **arguments, beta=job.loss.beta, max_length=job.training.max_length, remove_unused_columns=False)
    trainer = trainer_class(
        model=load_policy(job),  # after the configuration: DeepSpeed shards models that are loaded once it is configured
        args=trainer_config,
        train_dataset=pairs.select_columns(["prompt_ids", "chosen_ids", "rejected_ids"]),
        processing_class=tokenizer,
        peft_config=lora(job),
    )
    trainer.nll_alpha = job.loss.nll_alpha
    return trainer, counts
