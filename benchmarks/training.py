"""Training speed: our stage's trainer against TRL's DPO trainer called directly, and against itself with the pairs of a step in shuffled
order and with a live reference.

    python -m benchmarks.training

All sides train the same random policy on the same pairs with equal settings: batches, checkpoints (the stage also writes down what
they consist of), a metrics line every step. Figures are of `trainer.train()`; `once` is what comes before it: models, tokens, and the
reference's log-probabilities where they are taken first; `processor` is the epoch's processor time, which a busy machine blurs less.
"""

import argparse
import sys
import time
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, LlamaForCausalLM
from trl import DPOConfig, DPOTrainer

from benchmarks.sides import clock, compare, options, parse
from eva_stages.core.config.solver_config import DPO, Training
from eva_stages.core.fingerprint import tree_digest
from eva_stages.core.tables import read_table
from eva_stages.doctor import random_inputs
from eva_stages.models.loading import load_tokenizer
from eva_stages.solver.checkpoints import CheckpointDigests
from eva_stages.solver.fitting import MetricsFile
from eva_stages.solver.job import TrainingJob
from eva_stages.solver.preference import make_trainer

SIDES = ["stage", "direct", "stage_shuffled", "stage_live", "direct_live"]


def save_inputs(root: Path, arguments: argparse.Namespace) -> dict[str, str]:
    """A random policy of five million parameters, its own reference, and pairs of random words."""
    torch.manual_seed(0)
    config = random_inputs.config(hidden_size=256, intermediate_size=688, num_hidden_layers=4, head_dim=64)
    LlamaForCausalLM(config).save_pretrained(root / "policy")
    random_inputs.tokenizer().save_pretrained(root / "policy")
    random_inputs.write_source(random_inputs.pair_rows(arguments.pairs, (40, 80), longest=256), "pairs", root / "pairs")
    return {"policy": str(root / "policy"), "reference": str(root / "policy"), "pairs": str(root / "pairs")}


def job(inputs: dict[str, str], work: Path, arguments: argparse.Namespace, precompute: bool) -> TrainingJob:
    """What the launcher would give to the training process."""
    training = {
        "learning_rate": 1e-5,
        "batch_size": 4 * arguments.micro,
        "epochs": 1,
        "max_length": 1024,
        "dtype": "bfloat16" if torch.cuda.is_available() else "float32",
        "gradient_checkpointing": False,
        "runtime": {"micro_batch_size": arguments.micro, "precompute_reference": precompute},
    }
    return TrainingJob(
        loss=DPO(kind="dpo", nll_alpha=0.0),
        loss_function=None,
        training=Training.model_validate(training),
        on_policy=None,
        seed=0,
        system_prompt=None,
        date=None,
        inputs={name: Path(folder) for name, folder in inputs.items()},
        reference_digest=tree_digest(Path(inputs["reference"])),
        work=work,
        cache=work / "cache",
        label="benchmark",
    )


def stage(inputs: dict[str, str], work: Path, arguments: argparse.Namespace, precompute: bool) -> DPOTrainer:
    """The trainer of our stage, as `fit` starts it."""
    trainer, _ = make_trainer(job(inputs, work, arguments, precompute))
    trainer.add_callback(MetricsFile(work / "metrics.jsonl"))
    trainer.add_callback(CheckpointDigests())
    return trainer


def direct(inputs: dict[str, str], work: Path, arguments: argparse.Namespace, precompute: bool) -> DPOTrainer:
    """TRL as its documentation shows it, with the stage's settings."""
    settings = job(inputs, work, arguments, precompute).training
    config = DPOConfig(
        output_dir=str(work / "checkpoints"),
        per_device_train_batch_size=arguments.micro,
        gradient_accumulation_steps=settings.batch_size // arguments.micro,
        num_train_epochs=1,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.scheduler,
        warmup_steps=settings.warmup_ratio,
        max_length=settings.max_length,
        beta=0.1,
        bf16=settings.dtype == "bfloat16",
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=False,
        seed=0,
        logging_steps=1,
        save_steps=max(1, arguments.pairs // settings.batch_size // 2),
        save_total_limit=2,
        report_to=[],
        disable_tqdm=True,
        precompute_ref_log_probs=precompute,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    return DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(inputs["policy"], dtype=torch.float32),
        ref_model=AutoModelForCausalLM.from_pretrained(inputs["reference"], dtype=getattr(torch, settings.dtype)),
        args=config,
        train_dataset=Dataset(read_table(Path(inputs["pairs"]), ["prompt", "chosen", "rejected"])),
        processing_class=load_tokenizer(inputs["policy"]),
    )


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    side, _, variant = arguments.side.partition("_")
    seconds: dict[str, float] = {}
    inputs = save_inputs(folder, arguments)
    with clock(seconds, "once"):
        trainer = {"stage": stage, "direct": direct}[side](inputs, folder, arguments, variant != "live")
    if variant == "shuffled":
        trainer.sorts_steps = False
    cpu_start = time.process_time()
    with clock(seconds, "epoch"):
        trainer.train()
    seconds["processor"] = time.process_time() - cpu_start
    tokens = max(entry.get("num_tokens", 0) for entry in trainer.state.log_history)
    return {"tokens_per_second": tokens / seconds["epoch"], **seconds}


def main() -> None:
    arguments = parse(options(__doc__, pairs=64, micro=4), dict.fromkeys(SIDES, measure))
    medians = compare("benchmarks.training", SIDES, arguments.rounds, "tokens_per_second")
    print(
        f"stage_live / direct_live: {medians['stage_live'] / medians['direct_live']:.3f} (tokens_per_second, median of {arguments.rounds})"
    )
    limits = {"direct": 0.97, "stage_shuffled": 1.0, "stage_live": 1.2}
    sys.exit(any(medians["stage"] / medians[side] < ratio for side, ratio in limits.items()))


if __name__ == "__main__":
    main()
