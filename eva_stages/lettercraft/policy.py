"""The base policy of Lettercraft: a tiny Llama taught by sloppy demonstrations, and the command that rebuilds it.

    python -m eva_stages.lettercraft.policy OUT_DIR

A policy taught by clean demonstrations is useless as a start: it is perfect on the lengths it saw and lost past them, so hardly
any prompt has a reward gap. Teachers who slip more often on harder instructions leave a policy that knows the right answer and
several wrong ones for most prompts, which is what preference optimisation and reward gaps live on. Rebuilding is exact on one
machine and equal to rounding on another.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from eva_stages.lettercraft.language import (
    MIN_LETTERS,
    OPERATION_NAMES,
    Instruction,
    grade,
    random_instruction,
    random_word,
)

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

PAD, USER, ASSISTANT, END = "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
PHRASES = ("Take ", ", then ", ", ", ".", *OPERATION_NAMES)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


Demonstrations = list[tuple[str, str]]
"""Instructions with a teacher's answers."""


@dataclass(frozen=True)
class TrainingRecipe:
    """The size of a policy and of its training."""

    seed: int = 0
    layers: int = 4
    width: int = 128
    heads: int = 4
    steps: int = 5000
    batch_size: int = 64
    learning_rate: float = 1.5e-3


R = TypeVar("R", bound=TrainingRecipe)


@dataclass(frozen=True)
class PolicyRecipe(TrainingRecipe):
    """Everything that decides the base policy's weights."""

    max_operations: int = 4
    max_letters: int = 9
    slip_base: float = 0.06
    slip_per_operation: float = 0.12
    slip_per_letter: float = 0.06
    slip_max: float = 0.7


def build_tokenizer(phrases: tuple[str, ...] = PHRASES) -> "PreTrainedTokenizerFast":
    """One token for each phrase and letter; decoding is plain joining, so text survives the round trip."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: index for index, token in enumerate((PAD, USER, ASSISTANT, END, "<|unk|>", *phrases, *LETTERS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|unk|>"))
    longest_first = sorted(phrases, key=len, reverse=True)
    pattern = "|".join(phrase.replace(".", r"\.") for phrase in longest_first) + "|[a-z]|."
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token="<|unk|>",
        extra_special_tokens=[USER, ASSISTANT],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def build_model(recipe: TrainingRecipe, tokenizer: "PreTrainedTokenizerFast") -> "LlamaForCausalLM":
    """A Llama of the recipe's size with random weights from its seed."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        intermediate_size=3 * recipe.width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def slip_probability(recipe: PolicyRecipe, instruction: Instruction) -> float:
    """How likely a teacher's answer is sloppy: more operations and more letters, more slips."""
    extra = len(instruction.operations) - 1
    chance = recipe.slip_base + recipe.slip_per_operation * extra
    return min(recipe.slip_max, chance + recipe.slip_per_letter * max(0, len(instruction.word) - MIN_LETTERS))


def sloppy_answer(rng: np.random.Generator, instruction: Instruction) -> str:
    """What a careless teacher writes: an operation skipped or swapped for another, or one letter wrong."""
    operations = list(instruction.operations)
    slip = rng.integers(3)
    place = int(rng.integers(len(operations)))
    if slip == 0:
        del operations[place]
    elif slip == 1:
        operations[place] = str(rng.choice(OPERATION_NAMES))
    answer = Instruction(instruction.word, tuple(operations)).answer
    if slip == 2:
        spot = int(rng.integers(len(answer)))
        answer = answer[:spot] + random_word(rng, 1) + answer[spot + 1 :]
    return answer


def demonstration(rng: np.random.Generator, recipe: PolicyRecipe) -> tuple[str, str]:
    """An instruction and a teacher's answer; mostly short instructions, and a few hard ones."""
    weights = 0.55 ** np.arange(recipe.max_operations)
    operations = 1 + int(rng.choice(recipe.max_operations, p=weights / weights.sum()))
    letters = int(rng.integers(MIN_LETTERS, recipe.max_letters + 1))
    instruction = random_instruction(rng, operations, letters)
    slips = rng.random() < slip_probability(recipe, instruction)
    return str(instruction), sloppy_answer(rng, instruction) if slips else instruction.answer


def sloppy_batches(recipe: PolicyRecipe) -> Iterator[Demonstrations]:
    """Endless batches of sloppy demonstrations."""
    rng = np.random.default_rng(recipe.seed)
    while True:
        yield [demonstration(rng, recipe) for _ in range(recipe.batch_size)]


def train(
    recipe: TrainingRecipe, batches: Iterator[Demonstrations], phrases: tuple[str, ...] = PHRASES
) -> "tuple[LlamaForCausalLM, PreTrainedTokenizerFast]":
    """Teach the model by maximum likelihood on demonstrations drawn as it goes (loss on the answers only)."""
    import torch

    tokenizer = build_tokenizer(phrases)
    model = build_model(recipe, tokenizer).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=recipe.steps, pct_start=0.05)
    start_time = time.monotonic()
    for step, pairs in enumerate(islice(batches, recipe.steps)):
        loss = _batch_loss(model, tokenizer, pairs)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step}/{recipe.steps} loss {loss.item():.3f} {time.monotonic() - start_time:.0f} s", flush=True)
    return model.eval(), tokenizer


def _batch_loss(model: "LlamaForCausalLM", tokenizer: "PreTrainedTokenizerFast", pairs: Demonstrations) -> "torch.Tensor":
    import torch

    prompts = [tokenizer(f"{USER}{prompt}{END}{ASSISTANT}")["input_ids"] for prompt, _ in pairs]
    answers = [tokenizer(answer + END)["input_ids"] for _, answer in pairs]
    width = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    ids = torch.full((len(pairs), width), tokenizer.pad_token_id)
    labels = torch.full((len(pairs), width), -100)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        sequence = torch.tensor(prompt + answer)
        ids[row, : len(sequence)] = sequence
        labels[row, len(prompt) : len(sequence)] = sequence[len(prompt) :]
    return model(input_ids=ids, attention_mask=(ids != tokenizer.pad_token_id).long(), labels=labels).loss


def measure(model: "LlamaForCausalLM", tokenizer: "PreTrainedTokenizerFast", prompts: list[str], sample: bool) -> float:
    """Mean reward of one answer per prompt, greedy or sampled at temperature 1."""
    import torch

    from eva_stages.lettercraft.language import parse

    torch.manual_seed(0)
    texts = [f"{USER}{prompt}{END}{ASSISTANT}" for prompt in prompts]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    output = model.generate(**{k: batch[k] for k in ("input_ids", "attention_mask")}, max_new_tokens=40, do_sample=sample, top_k=0)
    responses = tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    instructions = [parse(prompt) for prompt in prompts]
    return float(np.mean([grade(i, r) for i, r in zip(instructions, responses, strict=True) if i is not None]))


def save(model: "LlamaForCausalLM", tokenizer: "PreTrainedTokenizerFast", recipe: TrainingRecipe, folder: Path) -> None:
    """Write a float16 safetensors checkpoint, its tokenizer and its recipe."""
    import torch

    model.to(torch.float16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "lettercraft_recipe.json").write_text(json.dumps(asdict(recipe), indent=2) + "\n", encoding="utf-8")


def command_line(description: str | None, recipe_class: type[R]) -> tuple[Path, R]:
    """The folder and the recipe that the command of a base policy names."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write the checkpoint to")
    parser.add_argument("--seed", type=int, default=recipe_class.seed)
    parser.add_argument("--steps", type=int, default=recipe_class.steps)
    arguments = parser.parse_args()
    return arguments.out, recipe_class(seed=arguments.seed, steps=arguments.steps)


def main() -> None:
    folder, recipe = command_line(__doc__, PolicyRecipe)
    model, tokenizer = train(recipe, sloppy_batches(recipe))
    rng = np.random.default_rng(recipe.seed + 1)
    for name, sizes in {"1-2 x 3-5": ((1, 3), (3, 6)), "1-3 x 3-9": ((1, 4), (3, 10)), "3 x 5-9": ((3, 4), (5, 10))}.items():
        prompts = [str(random_instruction(rng, int(rng.integers(*sizes[0])), int(rng.integers(*sizes[1])))) for _ in range(500)]
        greedy, sampled_reward = (measure(model, tokenizer, prompts, sample) for sample in (False, True))
        print(f"operations x letters {name}: greedy {greedy:.3f}, sampled {sampled_reward:.3f}", flush=True)
    save(model, tokenizer, recipe, folder)


if __name__ == "__main__":
    main()
