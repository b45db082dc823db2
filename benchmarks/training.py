"""Training speed: our stage's trainer against TRL's DPO trainer called directly, and against itself with a live reference.

    python -m benchmarks.training

All sides train the same random policy on the same pairs with equal settings: batches, checkpoints (the stage also writes down what
they consist of), a metrics line every step. Figures are of `trainer.train()`; `once` is what comes before it: models, tokens, and the
reference's log-probabilities where they are taken first; `processor` is the epoch's processor time, which a busy machine blurs less.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, LlamaForCausalLM
from trl import DPOConfig, DPOTrainer

from benchmarks import common
from eva_stages.core.fingerprint import tree_digest
from eva_stages.core.tables import read_table
from eva_stages.models.loading import load_tokenizer
from eva_stages.solver.fitting import CheckpointDigests
from eva_stages.solver.preference import make_trainer

SIDES = ["stage", "direct", "stage_live", "direct_live"]


def save_inputs(root: Path, arguments: argparse.Namespace) -> dict[str, str]:
    """A random policy of five million parameters, its own reference, and pairs of random words."""
    config = common.config(eos_token_id=1)
    config.hidden_size, config.intermediate_size, config.num_hidden_layers = 256, 688, 4
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(root / "policy")
    common.tokenizer().save_pretrained(root / "policy")
    sides = [common.texts(arguments.pairs, median, seed, longest=256) for seed, median in enumerate((40, 80, 80))]
    rows = [
        {
            "prompt_id": str(number),
            "prompt": [{"role": "user", "content": prompt}],
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
            "chosen_reward": 1.0,
            "rejected_reward": 0.0,
        }
        for number, (prompt, chosen, rejected) in enumerate(zip(*sides, strict=True))
    ]
    common.write_source(rows, "pairs", root / "pairs")
    return {"policy": str(root / "policy"), "reference": str(root / "policy"), "pairs": str(root / "pairs")}


def job(inputs: dict[str, str], work: Path, arguments: argparse.Namespace, precompute: bool) -> dict[str, Any]:
    """What the launcher would hand to the training entry."""
    return {
        **inputs,
        "work": str(work),
        "cache": str(work / "cache"),
        "reference_digest": tree_digest(Path(inputs["reference"])),
        "kind": "dpo",
        "loss": {"beta": 0.1, "nll_alpha": 0.0, "ld_alpha": None, "length_normalized": False},
        "learning_rate": 1e-5,
        "batch_size": 4 * arguments.micro,
        "epochs": 1,
        "scheduler": "cosine",
        "optimizer": "adamw_torch",
        "warmup_ratio": 0.1,
        "max_grad_norm": 1.0,
        "max_length": 1024,
        "too_long": "drop",
        "dtype": "bfloat16" if torch.cuda.is_available() else "float32",
        "attention": None,
        "adapter": None,
        "gradient_checkpointing": False,
        "checkpoints_per_epoch": 2,
        "seed": 0,
        "micro_batch_size": arguments.micro,
        "precompute_reference": precompute,
        "liger": False,
        "report_to": [],
        "label": "benchmark",
    }


def stage(inputs: dict[str, str], work: Path, arguments: argparse.Namespace, precompute: bool) -> DPOTrainer:
    """The trainer of our stage, as `fit` starts it."""
    trainer, _ = make_trainer(job(inputs, work, arguments, precompute))
    trainer.add_callback(CheckpointDigests())
    return trainer


def direct(inputs: dict[str, str], work: Path, arguments: argparse.Namespace, precompute: bool) -> DPOTrainer:
    """TRL as its documentation shows it, with the stage's settings."""
    settings = job(inputs, work, arguments, precompute)
    config = DPOConfig(
        output_dir=str(work / "checkpoints"),
        per_device_train_batch_size=arguments.micro,
        gradient_accumulation_steps=settings["batch_size"] // arguments.micro,
        num_train_epochs=1,
        learning_rate=settings["learning_rate"],
        lr_scheduler_type=settings["scheduler"],
        warmup_steps=settings["warmup_ratio"],
        max_length=settings["max_length"],
        beta=settings["loss"]["beta"],
        bf16=settings["dtype"] == "bfloat16",
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=False,
        seed=settings["seed"],
        logging_steps=1,
        save_steps=max(1, arguments.pairs // settings["batch_size"] // 2),
        save_total_limit=2,
        report_to=[],
        disable_tqdm=True,
        precompute_ref_log_probs=precompute,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    return DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(inputs["policy"], dtype=torch.float32),
        ref_model=AutoModelForCausalLM.from_pretrained(inputs["reference"], dtype=getattr(torch, settings["dtype"])),
        args=config,
        train_dataset=Dataset(read_table(Path(inputs["pairs"]), ["prompt", "chosen", "rejected"])),
        processing_class=load_tokenizer(inputs["policy"]),
    )


def measure(side: str, arguments: argparse.Namespace) -> dict[str, float]:
    who, _, live = side.partition("_")
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        inputs = save_inputs(Path(folder), arguments)
        with common.clock(seconds, "once"):
            trainer = {"stage": stage, "direct": direct}[who](inputs, Path(folder), arguments, not live)
        begun = time.process_time()
        with common.clock(seconds, "epoch"):
            trainer.train()
        seconds["processor"] = time.process_time() - begun
    tokens = max(entry.get("num_tokens", 0) for entry in trainer.state.log_history)
    return {"tokens_per_second": tokens / seconds["epoch"], **seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--micro", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(measure(arguments.side, arguments)))
        return
    passed = [word for name in ("pairs", "micro") for word in (f"--{name}", str(vars(arguments)[name]))]
    medians = common.report("benchmarks.training", SIDES, passed, arguments.rounds, "tokens_per_second")
    print(
        f"stage_live / direct_live: {medians['stage_live'] / medians['direct_live']:.3f} (tokens_per_second, median of {arguments.rounds})"
    )
    wanted = {"direct": 0.97, "stage_live": 1.2}
    sys.exit(any(medians["stage"] / medians[side] < ratio for side, ratio in wanted.items()))


if __name__ == "__main__":
    main()
