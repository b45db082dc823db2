"""Losses with a reference policy, on TRL's DPO trainer: TRL's own by name, and soft SPPO.

The reference policy is always an input of the stage and loaded separately: a resumed training takes its weights from its last complete
checkpoint and its reference from the input. One function computes the reference's log-probabilities, before training (then its weights
are freed) or at every step.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from eva_stages.core.config.function_fields import LOSS
from eva_stages.core.config.solver_config import SPPO, BestSibling, CustomLoss, ReferenceLoss, SiblingRLOO
from eva_stages.core.errors import DataError
from eva_stages.core.named_functions import load_choice
from eva_stages.models.loading import load_tokenizer
from eva_stages.solver import losses
from eva_stages.solver.fitting import (
    CompleteSteps,
    common_arguments,
    fit,
    load_policy,
    load_reference,
    lora,
    tokenized_pairs,
)
from eva_stages.solver.job import TrainingJob
from eva_stages.solver.launching import REFERENCE
from eva_stages.solver.loss_calls import checked_loss
from eva_stages.solver.references import COLUMNS, ReferenceLogProbs, ReferencePass, uses_own_weights
from eva_stages.solver.tokens import FIGURES, WINS

LOSS_TYPES = {"dpo": "sigmoid", "sppo": "sppo_hard"}
"""TRL's names where they differ from ours; soft SPPO uses TRL's metrics and replaces its loss."""
OVER_MICRO_BATCHES = ("aot", "aot_unpaired", "custom")
"""Losses that depend on which pairs are in a micro batch together, or may do so."""


class PairCollator(DataCollatorForPreference):
    """TRL's collator, with win probabilities and rewards."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        columns = {name: torch.tensor([example[name] for example in examples]) for name in FIGURES if name in examples[0]}
        return {**super().torch_call(examples), **columns}


class PairTrainer(ReferencePass, CompleteSteps, DPOTrainer):
    """TRL's DPO trainer over token ids, with other losses, the paper's NLL term and cached reference log-probabilities.

    The NLL term is (alpha / |y+|) * -log pi(y+|x); TRL's own `sft` is a mean over the batch's tokens, so long responses would
    count more.
    """

    precompute_ref_logps: bool
    _loss_metrics: list[str] | None = None
    """Names of the metrics of `replacement`."""
    _signature_columns: list[str]

    def __init__(
        self, *, replacement: losses.Loss | None, nll_alpha: float, cache: ReferenceLogProbs, progress: Path, **settings: Any
    ) -> None:
        """
        Args:
            replacement: a loss to compute in place of TRL's.
            progress: file that takes how many of the reference's log-probabilities are computed.
        """
        self._replacement, self._nll_alpha, self._cache, self._progress = replacement, nll_alpha, cache, progress
        super().__init__(**settings)
        self._live_reference = None if self.precompute_ref_logps else self.ref_model
        self.precompute_ref_logps = True  # TRL's loss then always reads them from the batch

    def _prepare_dataset(self, dataset: Dataset, *arguments: Any) -> Dataset:
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        self._signature_columns = list(dict.fromkeys([*self._signature_columns, *FIGURES]))

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        outputs: dict[str, Any] = {}

        def observed_model(**arguments: Any) -> Any:
            outputs["policy"] = model(**arguments)
            return outputs["policy"]

        figures = {name: inputs[name] for name in FIGURES if name in inputs}
        inputs = {name: value for name, value in inputs.items() if name not in FIGURES}
        if COLUMNS[0] not in inputs:
            inputs |= dict(zip(COLUMNS, self.compute_ref_log_probs(self._live_reference or self.model, inputs), strict=True))
        loss = super()._compute_loss(observed_model, inputs, return_outputs)
        mask = inputs["completion_mask"][..., 1:]
        logps = outputs["policy"].log_probs[:, -mask.shape[1] :]
        if self._replacement is not None:
            chosen, rejected = (logps * mask).sum(dim=1).chunk(2)
            lengths = mask.sum(dim=1).chunk(2)
            values_of_pairs = [figures[name].to(logps.dtype) if name in figures else None for name in FIGURES]
            pairs = losses.PairLogProbs(chosen, rejected, inputs[COLUMNS[0]], inputs[COLUMNS[1]], *lengths, *values_of_pairs)
            values, metrics = self._replacement(pairs)
            self._check_names(sorted(metrics))
            loss = values.mean()
            for name, value in sorted(metrics.items()):
                self._log_mean(name, torch.as_tensor(value, dtype=loss.dtype, device=loss.device))
        if self._nll_alpha == 0:
            return loss
        nll = losses.length_normalized_nll(logps.chunk(2)[0], mask.chunk(2)[0])
        self._log_mean("nll", nll)
        return loss + self._nll_alpha * nll

    def _check_names(self, names: list[str]) -> None:
        """All processes average a metric together, so a process that lacks one would stop the others."""
        first_names = self._loss_metrics = names if self._loss_metrics is None else self._loss_metrics
        if names != first_names:
            raise DataError(f"the loss returned the metrics {names}, and {first_names} before; return the same metrics every time")

    def _log_mean(self, name: str, value: torch.Tensor) -> None:
        mode = "train" if self.model.training else "eval"
        self._metrics[mode][name].append(self.accelerator.gather_for_metrics(value.detach()).mean().item())


def _replacement(job: TrainingJob) -> losses.Loss | None:
    """The loss to compute in place of TRL's; None for TRL's own."""
    match job.loss:
        case SPPO(beta=beta):
            return partial(losses.sppo, beta=beta)
        case SiblingRLOO(beta=beta):
            return partial(losses.sibling_rloo, beta=beta)
        case BestSibling():
            return losses.best_sibling
    return partial(checked_loss, loss=load_choice(job.loss_function, LOSS)) if job.loss_function is not None else None


def loss_arguments(loss: ReferenceLoss | SPPO | CustomLoss | SiblingRLOO | BestSibling) -> dict[str, Any]:
    """A loss as TRL's configuration; the margins that are logged of a loss that TRL does not have are of log-ratios."""
    if isinstance(loss, CustomLoss | SiblingRLOO | BestSibling):
        return {"loss_type": ["sigmoid"], "beta": 1.0}
    settings = loss.model_dump(exclude={"nll_alpha"})
    kind = settings["kind"]
    name = "sigmoid_norm" if settings.get("length_normalized") else LOSS_TYPES.get(kind, kind)
    smoothing = {"label_smoothing": settings["label_smoothing"]} if settings.get("label_smoothing") else {}
    return {"loss_type": [name], "beta": loss.beta, "ld_alpha": settings.get("ld_alpha"), **smoothing}


def train(job: TrainingJob) -> None:
    """One round of preference optimisation over a file of pairs."""
    trainer, counts = make_trainer(job)
    fit(trainer, job, counts)


def make_trainer(job: TrainingJob) -> tuple[PairTrainer, dict[str, int]]:
    """The trainer of a job, with the reference's log-probabilities computed, and the counts of its pairs."""
    loss, precompute = job.loss, job.training.runtime.precompute_reference
    assert isinstance(loss, ReferenceLoss | SPPO | CustomLoss | SiblingRLOO | BestSibling)
    tokenizer = load_tokenizer(str(job.policy))
    tokens, pairs, counts = tokenized_pairs(job, tokenizer)
    if isinstance(loss, SPPO) and WINS[0] not in pairs.column_names:
        raise DataError("solver.loss: sppo needs win probabilities of both responses, and the pairs have none; use a pairwise reward")
    cache = ReferenceLogProbs.of(job, tokens)
    # without a reference TRL would take the adapter that training goes on from for one, and save it a second time
    needs_reference = cache.read(len(pairs)) is None or not precompute or job.first_adapter is not None
    settings = common_arguments(job, len(pairs), PartialState().num_processes)
    arguments = DPOConfig(  # before the models: DeepSpeed shards models that are loaded once it is configured
        **settings,
        **loss_arguments(loss),
        max_length=None,
        precompute_ref_log_probs=precompute,
        precompute_ref_batch_size=2 * settings["per_device_train_batch_size"],
    )
    trainer = PairTrainer(
        replacement=_replacement(job),
        nll_alpha=loss.nll_alpha,
        cache=cache,
        progress=job.work / REFERENCE,
        model=load_policy(job),
        ref_model=load_reference(job) if needs_reference and not uses_own_weights(job) else None,
        args=arguments,
        data_collator=PairCollator(pad_token_id=tokenizer.pad_token_id),
        train_dataset=pairs,
        processing_class=tokenizer,
        peft_config=lora(job),
    )
    trainer.sorts_steps = loss.kind not in OVER_MICRO_BATCHES
    return trainer, counts
