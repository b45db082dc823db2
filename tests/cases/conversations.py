"""Shared by the cases of conversations: tiny policies with the tokenizers of known families, and their responses by the real steps."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from transformers import LlamaForCausalLM

from eva_stages.core.recipe_files import load_recipe
from eva_stages.core.responding import Respond
from eva_stages.core.rows import SCHEMAS, Message, prompt_row
from eva_stages.core.tables import write_rows
from eva_stages.models.rewards import Conversation, PointwiseReward, Score
from eva_stages.models.transformers_generator import TransformersGenerator
from eva_stages.solver.pairing import MakePairs
from tests.chat_templates import FAMILIES, family_tokenizer
from tests.tiny_models import config

RECIPE = str(Path(__file__).parents[1] / "recipes" / "tiny_text.yaml")
QUESTION: list[Message] = [{"role": "user", "content": "What is a planet?"}]
DIALOGUE: list[Message] = [
    {"role": "user", "content": "What is a planet?"},
    {"role": "assistant", "content": "<think>\nEasy.\n</think>\n\nIt goes round a star."},
    {"role": "user", "content": "Name two of them."},
]
Exchanges = list[tuple[list[int], list[int]]]
SYSTEM = "Answer like a pirate."
TEXTS = [message["content"] for message in DIALOGUE]


def save_families(folder: Path) -> Path:
    """Save a tiny policy with the tokenizer of each family, in a folder with the family's name."""
    for name, family in FAMILIES.items():
        words = family_tokenizer(family, TEXTS)
        torch.manual_seed(0)
        LlamaForCausalLM(config(words)).save_pretrained(folder / name)
        words.save_pretrained(folder / name)
    return folder


def generator(folder: Path, **settings: Any) -> TransformersGenerator:
    llm = TransformersGenerator(model=str(folder), **{"max_new_tokens": 12, **settings})
    llm.load()
    return llm


def recorded_exchanges(llm: TransformersGenerator) -> Exchanges:
    """Record the prompt ids that a generator's model receives and the ids that it returns, without left padding."""
    exchanges: Exchanges = []
    original = llm._model.generate

    def generate(**arguments: Any) -> Any:
        output = original(**arguments)
        copies = len(output) // len(arguments["input_ids"])  # eva's loop returns the responses alone, n for each prompt
        for ids, mask, rows in zip(arguments["input_ids"], arguments["attention_mask"], output.split(copies), strict=True):
            exchanges.extend((ids[mask.bool()].tolist(), row.tolist()) for row in rows)
        return output

    llm._model.generate = generate
    return exchanges


def sampled_pair(
    folder: Path, folder_of_pairs: Path, messages: list[Message], **settings: Any
) -> tuple[list[tuple[list[int], list[int]]], dict[str, Any]]:
    """Sample two responses by the real steps, save them as a pair in `folder_of_pairs`; return the exchanges and the row."""
    llm = generator(folder, **settings)
    exchanges = recorded_exchanges(llm)
    prompt = prompt_row(messages, "test")
    step = Respond(name="respond", llm=llm, num_generations=2, seed=3)
    (rows,) = step.process([dict(prompt)])
    responses = pa.Table.from_pylist(rows, schema=SCHEMAS["responses"])
    rewards = pa.table({"prompt_id": [prompt["prompt_id"]], "rewards": [[1.0, 0.0]]})
    pairs, _ = MakePairs(name="pair").transform(pa.Table.from_pylist([prompt], schema=SCHEMAS["prompts"]), responses, rewards)
    write_rows([pairs], SCHEMAS["pairs"], folder_of_pairs)
    return exchanges, responses.to_pylist()[0]


def recipe(folder: Path, **changes: Any) -> Any:
    if not (folder / "prompts.jsonl").is_file():
        (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"Say {n}."}) + "\n" for n in range(48)))
    places = {"prompts.path": str(folder / "prompts.jsonl"), "policy.model": str(folder / "policy"), "reward.model": str(folder / "reward")}
    return load_recipe(RECIPE, [f"{name}={json.dumps(value)}" for name, value in {**places, **changes}.items()])


class Echo(PointwiseReward):
    """A reward: the number of characters that it reads besides the prompt's question."""

    def score(self, conversations: Sequence[Conversation]) -> list[Score]:
        return [
            Score(len(conversation.response) + 100.0 * (conversation.messages[0]["role"] == "system")) for conversation in conversations
        ]
