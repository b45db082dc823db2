"""Annotation with a reward model: eva's reward stage against one response, or one prompt's n responses, per forward pass.

    python -m benchmarks.annotation

`stage` is the complete stage as `eva run` runs it, less the time of the same stage over one prompt (loading and starting). `one` and
`prompt` are bare loops over the same model, as the paper's public scripts have them: nothing is written, loading is not counted.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.generation import recipe
from benchmarks.sides import clock, compare, options, parse
from eva_stages.checking.resolution import resolve
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.rows import prompt_row
from eva_stages.doctor import random_inputs
from pipelines.response_stages import rewarding


def rows(count: int, n: int) -> list[dict[str, Any]]:
    """Prompts with n responses each; the responses to a prompt differ in length as sampled ones do."""
    answers = iter(random_inputs.texts(count * n, median=150, seed=1, longest=1024, spread=0.7))
    prompt_rows = [prompt_row(messages, "benchmark") for messages in random_inputs.prompts(count)]
    return [{**row, "responses": [next(answers) for _ in range(n)]} for row in prompt_rows]


def stage(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """The reward stage over all prompts, less the time of the same stage over one."""
    random_inputs.save_reward(folder / "reward")
    settings = recipe("transformers", folder, arguments.n, 256).model_dump(mode="json")
    settings["reward"] = {"kind": "sequence_classifier", "model": str(folder / "reward"), "runtime": {"tokens_per_batch": 8192}}
    built_recipe = Recipe.model_validate(settings)
    all_rows, seconds = rows(arguments.prompts, arguments.n), {}
    for name, part in (("start", all_rows[:1]), ("all", all_rows)):
        prompts = random_inputs.write_source(part, "prompts", folder / f"{name}-prompts")
        responses = random_inputs.write_source(part, "responses", folder / f"{name}-responses")
        manifest = random_inputs.run_stage(
            rewarding(built_recipe, resolve(built_recipe), name, 0, prompts, responses, prompts), folder / f"run-{name}"
        )
        seconds[name] = manifest["seconds"]
    work_seconds = seconds["all"] - seconds["start"]
    return {"responses_per_second": arguments.prompts * arguments.n / work_seconds, "seconds": work_seconds, "start": seconds["start"]}


def loop(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """A bare loop with one response, or one prompt's responses, per forward pass."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from eva_stages.models.loading import load_tokenizer

    random_inputs.save_reward(folder / "reward")
    model = AutoModelForSequenceClassification.from_pretrained(folder / "reward").eval()
    tokenizer = load_tokenizer(str(folder / "reward"), padding_side="right")
    rewards, seconds = [], {}
    all_rows = rows(arguments.prompts, arguments.n)
    with clock(seconds, "all"), torch.inference_mode():
        for row in all_rows:
            chats = [[*row["messages"], {"role": "assistant", "content": text}] for text in row["responses"]]
            ids = [tokenizer.apply_chat_template(chat, return_dict=True)["input_ids"] for chat in chats]
            groups = [[sequence] for sequence in ids] if arguments.side == "one" else [ids]
            for group in groups:
                batch = tokenizer.pad({"input_ids": group}, return_tensors="pt")
                rewards += model(**batch).logits[:, 0].tolist()
    assert np.isfinite(rewards).all()
    return {"responses_per_second": len(rewards) / seconds["all"], "seconds": seconds["all"]}


def main() -> None:
    arguments = parse(options(__doc__, prompts=150, n=6), {"stage": stage, "prompt": loop, "one": loop})
    compare("benchmarks.annotation", ["stage", "prompt", "one"], arguments.rounds, "responses_per_second")


if __name__ == "__main__":
    main()
