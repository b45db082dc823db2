"""Training speed: our stage's trainer against TRL's DPO trainer called directly, and against itself with a live reference.

    python benchmarks/training.py [--hidden 256 --layers 4 --pairs 256 --tokens 96 --micro 8 --repeats 5]

Both sides train the same random Llama on the same pairs with equal settings (batch, micro batch, checkpoints, metrics every step), in
one process and in turn, so that a busy machine is busy for both. Times are of `trainer.train()`, the saving of checkpoints included.
Medians are printed with the fastest and the slowest repeat; "included" adds what taking the reference's log-probabilities costs once.
"""

import argparse
import json
import statistics
import tempfile
import time
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from trl import DPOConfig, DPOTrainer

from eva_stages.core.fingerprint import tree_digest
from eva_stages.core.rows import SCHEMAS
from eva_stages.core.tables import read_table, write_rows
from eva_stages.models.loading import load_tokenizer
from eva_stages.solver.fitting import CheckpointDigests
from eva_stages.solver.preference import make_trainer

SIDES = ("direct, live", "ours, live", "direct, precomputed", "ours, precomputed")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"hidden": 256, "layers": 4, "pairs": 256, "tokens": 96, "micro": 8, "repeats": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


def make_inputs(root: Path, asked: argparse.Namespace) -> dict[str, str]:
    """A random policy with the microworld's tokenizer, and pairs of random words of about `tokens` tokens a response."""
    tokenizer = load_tokenizer(str(resources.files("eva_stages.microworld") / "base_policy"))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=asked.hidden,
        intermediate_size=4 * asked.hidden,
        num_hidden_layers=asked.layers,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=4 * asked.tokens + 64,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(root / "policy")
    tokenizer.save_pretrained(root / "policy")
    rng = np.random.default_rng(0)

    def said(role: str, tokens: int) -> list[dict[str, str]]:
        return [{"role": role, "content": "".join(rng.choice(list("abcdefghij"), int(rng.integers(tokens // 2, tokens + 1))))}]

    rows = [
        {
            "prompt_id": str(number),
            "prompt": said("user", asked.tokens // 2),
            "chosen": said("assistant", asked.tokens),
            "rejected": said("assistant", asked.tokens),
            "chosen_reward": 1.0,
            "rejected_reward": 0.0,
        }
        for number in range(asked.pairs)
    ]
    write_rows([pa.Table.from_pylist(rows, schema=SCHEMAS["pairs"])], SCHEMAS["pairs"], root / "pairs")
    return {"policy": str(root / "policy"), "reference": str(root / "policy"), "pairs": str(root / "pairs")}


def job(inputs: dict[str, str], work: Path, asked: argparse.Namespace, precompute: bool) -> dict[str, Any]:
    """What the launcher would hand to the training entry."""
    return {
        **inputs,
        "work": str(work),
        "cache": str(work / "cache"),
        "reference_digest": tree_digest(Path(inputs["reference"])),
        "kind": "dpo",
        "loss": {"beta": 0.1, "nll_alpha": 0.0, "ld_alpha": None, "length_normalized": False},
        "learning_rate": 1e-5,
        "batch_size": 4 * asked.micro,
        "epochs": 1,
        "scheduler": "cosine",
        "optimizer": "adamw_torch",
        "warmup_ratio": 0.1,
        "max_grad_norm": 1.0,
        "max_length": 4 * asked.tokens + 64,
        "too_long": "drop",
        "dtype": "bfloat16" if torch.cuda.is_available() else "float32",
        "attention": None,
        "adapter": None,
        "gradient_checkpointing": False,
        "checkpoints_per_epoch": 2,
        "seed": 0,
        "micro_batch_size": asked.micro,
        "precompute_reference": precompute,
        "liger": False,
        "report_to": [],
        "label": "benchmark",
    }


def ours(inputs: dict[str, str], work: Path, asked: argparse.Namespace, precompute: bool) -> DPOTrainer:
    trainer, _ = make_trainer(job(inputs, work, asked, precompute))
    trainer.add_callback(CheckpointDigests())
    return trainer


def direct(inputs: dict[str, str], work: Path, asked: argparse.Namespace, precompute: bool) -> DPOTrainer:
    """TRL as its documentation shows it, with our stage's settings."""
    settings = job(inputs, work, asked, precompute)
    steps = asked.pairs // settings["batch_size"]
    arguments = DPOConfig(
        output_dir=str(work / "checkpoints"),
        per_device_train_batch_size=asked.micro,
        gradient_accumulation_steps=4,
        num_train_epochs=1,
        learning_rate=settings["learning_rate"],
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        max_length=settings["max_length"],
        beta=0.1,
        bf16=settings["dtype"] == "bfloat16",
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=False,
        seed=0,
        logging_steps=1,
        save_steps=max(1, steps // 2),
        save_total_limit=2,
        report_to=[],
        disable_tqdm=True,
        precompute_ref_log_probs=precompute,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    return DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(inputs["policy"], dtype=torch.float32),
        ref_model=AutoModelForCausalLM.from_pretrained(inputs["reference"], dtype=getattr(torch, settings["dtype"])),
        args=arguments,
        train_dataset=Dataset(read_table(Path(inputs["pairs"]), ["prompt", "chosen", "rejected"])),
        processing_class=load_tokenizer(inputs["policy"]),
    )


def measure(side: str, inputs: dict[str, str], asked: argparse.Namespace) -> dict[str, float]:
    who, reference = side.split(", ")
    with tempfile.TemporaryDirectory() as work:
        begun = time.perf_counter()
        trainer = {"ours": ours, "direct": direct}[who](inputs, Path(work), asked, reference == "precomputed")
        made = time.perf_counter()
        trainer.train()
        ended = time.perf_counter()
        tokens = max(entry.get("num_tokens", 0) for entry in trainer.state.log_history)
    return {"tokens/s": tokens / (ended - made), "epoch": ended - made, "included": ended - begun}


def main() -> None:
    asked = options()
    with tempfile.TemporaryDirectory() as folder:
        inputs = make_inputs(Path(folder), asked)
        measure(SIDES[1], inputs, asked)  # what is slow the first time only
        found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
        for repeat in range(asked.repeats):
            for side in SIDES if repeat % 2 == 0 else reversed(SIDES):
                found[side].append(measure(side, inputs, asked))
    middle = {side: {name: statistics.median(one[name] for one in runs) for name in runs[0]} for side, runs in found.items()}
    for side, runs in found.items():
        speeds = [one["tokens/s"] for one in runs]
        print(f"{side:20} {middle[side]['tokens/s']:10,.0f} tokens/s (from {min(speeds):,.0f} to {max(speeds):,.0f})")
    ratios = {
        "ours / direct, live reference (tokens/s, wanted >= 0.97)": middle[SIDES[1]]["tokens/s"] / middle[SIDES[0]]["tokens/s"],
        "ours / direct, precomputed (tokens/s, wanted >= 0.97)": middle[SIDES[3]]["tokens/s"] / middle[SIDES[2]]["tokens/s"],
        "ours: precomputed / live (per epoch, wanted >= 1.2)": middle[SIDES[1]]["epoch"] / middle[SIDES[3]]["epoch"],
        "ours: precomputed / live (one epoch, included)": middle[SIDES[1]]["included"] / middle[SIDES[3]]["included"],
    }
    for name, ratio in ratios.items():
        print(f"{name:62} {ratio:.3f}")
    print(json.dumps({"settings": vars(asked), "ratios": ratios, "device": "cuda" if torch.cuda.is_available() else "cpu"}))


if __name__ == "__main__":
    main()
