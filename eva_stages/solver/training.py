"""One round of preference optimisation on TRL's trainer. Run by `accelerate launch -m eva_stages.solver.training JOB.json`.

The reference policy is always the stage's input checkpoint, loaded on its own: a resumed training gets its weights from its last
whole checkpoint and its reference from where it began.
"""

import contextlib
import json
import math
import os
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint
from trl import DPOConfig, DPOTrainer

from eva_stages.core.errors import DataError
from eva_stages.core.store import sync, write_whole
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


class MetricsFile(TrainerCallback):
    """Appends the metrics of every optimiser step to a file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if state.is_world_process_zero and logs and "loss" in logs:
            entry = {"step": state.global_step, "total_steps": state.max_steps, **logs}
            with self._path.open("a") as stream:
                stream.write(json.dumps(entry) + "\n")


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


def arguments(job: dict[str, Any], pairs: int, processes: int) -> DPOConfig:
    """The job as TRL's configuration.

    Raises:
        ValueError: if the batch size cannot be made up of micro batches over the processes.
    """
    micro = min(job["micro_batch_size"], job["batch_size"] // processes)
    if micro < 1 or job["batch_size"] % (micro * processes):
        raise ValueError(
            f"solver.training.batch_size {job['batch_size']} is no multiple of micro_batch_size {micro} x {processes} processes"
        )
    steps_per_epoch = math.ceil(pairs / job["batch_size"])
    return DPOConfig(
        output_dir=str(Path(job["work"]) / "checkpoints"),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=job["batch_size"] // (micro * processes),
        num_train_epochs=job["epochs"],
        learning_rate=job["learning_rate"],
        lr_scheduler_type=job["scheduler"],
        optim=job["optimizer"],
        warmup_steps=job["warmup_ratio"],
        max_grad_norm=job["max_grad_norm"],
        max_length=job["max_length"],
        bf16=job["dtype"] == "bfloat16",
        gradient_checkpointing=job["gradient_checkpointing"],
        beta=job["beta"],
        seed=job["seed"],
        logging_steps=1,
        save_steps=max(1, math.ceil(steps_per_epoch / job["checkpoints_per_epoch"])),
        save_total_limit=2,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def whole_checkpoint(folder: Path) -> str | None:
    """The last checkpoint that was written to its end (its trainer state is written last)."""
    for _ in range(len(list(folder.glob("checkpoint-*")))):
        last = get_last_checkpoint(str(folder))
        if last is None:
            return None
        try:
            json.loads((Path(last) / "trainer_state.json").read_text())
            return last
        except (OSError, ValueError):
            print(f"{last} is not whole; going back to the one before", flush=True)
            Path(last).rename(Path(last).with_name("broken-" + Path(last).name))
    return None


def die_with(pid: int) -> None:
    """End this process when another one ends: an orphan would go on writing where a rerun starts to write."""

    def wait() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).wait()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main(job_file: str) -> None:
    job = json.loads(Path(job_file).read_text())
    die_with(job["launcher"])
    work = Path(job["work"])
    tokenizer = AutoTokenizer.from_pretrained(job["policy"])
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    # steps of 5e-7 vanish in bfloat16 weights, so the policy's are float32 whatever the arithmetic is
    policy = AutoModelForCausalLM.from_pretrained(job["policy"], dtype=torch.float32, use_safetensors=True)
    reference = AutoModelForCausalLM.from_pretrained(job["reference"], dtype=getattr(torch, job["dtype"]), use_safetensors=True)
    pairs, too_long = load_pairs(Path(job["pairs"]), tokenizer, job["max_length"])
    from accelerate import PartialState

    trainer = PairTrainer(
        model=policy,
        ref_model=reference,
        args=arguments(job, len(pairs), PartialState().num_processes),
        train_dataset=pairs,
        processing_class=tokenizer,
        callbacks=[MetricsFile(work / "metrics.jsonl")],
    )
    trainer.nll_alpha = job["nll_alpha"]
    trainer.train(resume_from_checkpoint=whole_checkpoint(work / "checkpoints"))
    trainer.save_model(str(work / "model.partial"))
    if trainer.is_world_process_zero():
        finish(trainer, work, {"pairs": len(pairs), "too_long": too_long})


def finish(trainer: PairTrainer, work: Path, counts: dict[str, int]) -> None:
    """Leave the checkpoint, its training log and the facts for the manifest."""
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    model = work / "model.partial"
    (model / "training_args.bin").unlink(missing_ok=True)
    write_whole(model / "training_log.json", json.dumps(history, indent=1))
    end = history[-max(1, len(history) // 4) :]  # one batch says little; the last quarter of the steps says how it ended
    names = {"loss": "loss", "reward_margin": "rewards/margins", "reward_accuracy": "rewards/accuracies"}
    facts = {
        "counts": {**counts, "steps": trainer.state.global_step},
        "training": {name: sum(entry[logged] for entry in end) / len(end) for name, logged in names.items()},
    }
    write_whole(work / "result.json", json.dumps(facts))
    model.rename(work / "model")
    sync(work)


if __name__ == "__main__":
    main(sys.argv[1])
