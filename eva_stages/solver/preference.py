"""Pairwise losses on TRL's DPO trainer.

The reference policy is always one of the stage's inputs, loaded on its own: a resumed training gets its weights from its last
whole checkpoint and its reference from where it began.
"""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import AutoModelForCausalLM
from trl import DPOConfig, DPOTrainer

from eva_stages.core.errors import DataError
from eva_stages.models.loading import load_tokenizer
from eva_stages.solver.fitting import MetricsFile, common_arguments, fit, load_policy
from eva_stages.solver.losses import length_normalized_nll


class PairTrainer(DPOTrainer):
    """TRL's DPO trainer with the paper's NLL term, (alpha / |y+|) * -log pi(y+|x), added to the loss.

    TRL's own `sft` term is a mean over the batch's tokens, so long responses would count more.
    """

    nll_alpha = 0.0

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        outputs: dict[str, Any] = {}

        def observed(**arguments: Any) -> Any:
            outputs["policy"] = model(**arguments)
            return outputs["policy"]

        loss = super()._compute_loss(observed, inputs, return_outputs)
        if self.nll_alpha == 0:
            return loss
        mask = inputs["completion_mask"][..., 1:]
        chosen = mask.shape[0] // 2
        nll = length_normalized_nll(outputs["policy"].log_probs[:chosen, -mask.shape[1] :], mask[:chosen])
        mode = "train" if self.model.training else "eval"
        self._metrics[mode]["nll"].append(self.accelerator.gather_for_metrics(nll.detach()).mean().item())
        return loss + self.nll_alpha * nll


def load_pairs(path: Path, tokenizer: Any, max_length: int) -> tuple[Dataset, int]:
    """The pairs that fit into `max_length` tokens with both responses, and how many did not."""
    table = pq.read_table(path / "rows.parquet", columns=["prompt", "chosen", "rejected"])
    dataset = Dataset(table)

    def fits(row: dict[str, Any]) -> bool:
        whole = (tokenizer.apply_chat_template(row["prompt"] + row[side], return_dict=True)["input_ids"] for side in ("chosen", "rejected"))
        return all(len(ids) <= max_length for ids in whole)

    kept = dataset.filter(fits, keep_in_memory=True)
    if len(kept) == 0:
        raise DataError(f"none of the {len(dataset)} pairs fits into solver.training.max_length = {max_length} tokens")
    return kept, len(dataset) - len(kept)


def train(job: dict[str, Any]) -> None:
    """One round of preference optimisation over a file of pairs."""
    tokenizer = load_tokenizer(job["policy"])
    reference = AutoModelForCausalLM.from_pretrained(job["reference"], dtype=getattr(torch, job["dtype"]), use_safetensors=True)
    pairs, too_long = load_pairs(Path(job["pairs"]), tokenizer, job["max_length"])
    settings = common_arguments(job, len(pairs), PartialState().num_processes)
    trainer = PairTrainer(
        model=load_policy(job),
        ref_model=reference,
        args=DPOConfig(**settings, max_length=job["max_length"], beta=job["loss"]["beta"]),
        train_dataset=pairs,
        processing_class=tokenizer,
        callbacks=[MetricsFile(Path(job["work"]) / "metrics.jsonl")],
    )
    trainer.nll_alpha = job["loss"]["nll_alpha"]
    fit(trainer, job, {"pairs": len(pairs), "too_long": too_long})
