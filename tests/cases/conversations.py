"""What the cases of conversations share: tiny policies with the tokenizers of known families, and their responses by the real steps."""

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
Seen = list[tuple[list[int], list[int]]]
SYSTEM = "Answer like a pirate."
TEXTS = [message["content"] for message in DIALOGUE]


def save_families(folder: Path) -> Path:
    """A tiny policy with the tokenizer of each family, in a folder of its name."""
    for name, family in FAMILIES.items():
        words = family_tokenizer(family, TEXTS)
        torch.manual_seed(0)
        LlamaForCausalLM(config(words)).save_pretrained(folder / name)
        words.save_pretrained(folder / name)
    return folder


def generator(folder: Path, **settings: Any) -> TransformersGenerator:
    made = TransformersGenerator(model=str(folder), **{"max_new_tokens": 12, **settings})
    made.load()
    return made


def watched(made: TransformersGenerator) -> Seen:
    """What the model of a generator is given and what it returns behind that, without the padding on the left."""
    seen: Seen = []
    original = made._model.generate

    def generate(**arguments: Any) -> Any:
        output = original(**arguments)
        for ids, mask, row in zip(arguments["input_ids"], arguments["attention_mask"], output, strict=True):
            seen.append((ids[mask.bool()].tolist(), row[len(ids) :].tolist()))
        return output

    made._model.generate = generate
    return seen


def sampled_pair(
    folder: Path, out: Path, messages: list[Message], **settings: Any
) -> tuple[list[tuple[list[int], list[int]]], dict[str, Any]]:
    """Two responses of a policy by the real steps, as pairs in `out`: what the model was given and drew, and the row of responses."""
    made = generator(folder, **settings)
    seen = watched(made)
    prompt = prompt_row(messages, "test")
    step = Respond(name="respond", llm=made, num_generations=2, seed=3)
    (rows,) = step.process([dict(prompt)])
    responses = pa.Table.from_pylist(rows, schema=SCHEMAS["responses"])
    rewards = pa.table({"prompt_id": [prompt["prompt_id"]], "rewards": [[1.0, 0.0]]})
    pairs, _ = MakePairs(name="pair").transform(pa.Table.from_pylist([prompt], schema=SCHEMAS["prompts"]), responses, rewards)
    write_rows([pairs], SCHEMAS["pairs"], out)
    return seen, responses.to_pylist()[0]


def recipe(folder: Path, **changes: Any) -> Any:
    if not (folder / "prompts.jsonl").is_file():
        (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"Say {n}."}) + "\n" for n in range(48)))
    places = {"prompts.path": str(folder / "prompts.jsonl"), "policy.model": str(folder / "policy"), "reward.model": str(folder / "reward")}
    return load_recipe(RECIPE, [f"{name}={json.dumps(value)}" for name, value in {**places, **changes}.items()])


class Echo(PointwiseReward):
    """The number of characters of all that it reads besides the prompt's question."""

    def score(self, conversations: Sequence[Conversation]) -> list[Score]:
        return [Score(len(one.response) + 100.0 * (one.messages[0]["role"] == "system")) for one in conversations]
