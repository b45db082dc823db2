"""The small creator network of Lettercraft deep, and the command that rebuilds it.

    python -m eva_stages.lettercraft.creator_policy OUT_DIR

It reads an instruction and writes an evolution of it, for `creator.evolve.method: verbatim`. Its teacher is the deep world's evolver:
one of its mutations, and a share of errors. Sampled at temperature 1 it gives different siblings, some of them of no use, so that training
it (`creator.training`) has something to choose among. It learns to copy operations but not letters, so that its words are other ones, which
does not matter here: what a policy can learn from an instruction depends on its operations.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eva_stages.lettercraft.deep_policy import DeepRecipe, sorted_batches
from eva_stages.lettercraft.distributions import deep_instruction, is_within_reach, operation_frequencies
from eva_stages.lettercraft.language import Instruction, parse
from eva_stages.lettercraft.mutations import UNKNOWN_OPERATION, deep_mutation, erroneous
from eva_stages.lettercraft.policy import (
    ASSISTANT,
    END,
    PHRASES,
    USER,
    Demonstrations,
    command_line,
    save,
    train,
)

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

REQUESTS = ("add one more constraints", "depth and breadth", "more specific concepts", "simple thinking processes", "Created Prompt")
"""What distinguishes the evolve templates, as `deep_mutation` reads them."""


@dataclass(frozen=True)
class CreatorPolicyRecipe(DeepRecipe):
    """Everything that decides the creator network's weights."""

    steps: int = 3000
    errors: float = 0.15


def evolution(rng: np.random.Generator, recipe: CreatorPolicyRecipe, instruction: Instruction) -> str:
    """What the teacher makes of an instruction."""
    if rng.random() < recipe.errors:
        return erroneous(instruction, rng)
    return str(deep_mutation(str(rng.choice(REQUESTS)), instruction, rng))


def demonstration_batches(recipe: CreatorPolicyRecipe) -> Iterator[Demonstrations]:
    """Endless batches of instructions and their evolutions, of similar length."""
    return sorted_batches(
        recipe, lambda rng, instruction: evolution(rng, recipe, instruction), lambda instruction, text: len(instruction) + len(text)
    )


def kind_of_evolution(parent: Instruction, text: str) -> str:
    """What an evolution changes: its operations, or else its word; or why it is of no use."""
    child = parse(text)
    if child is None:
        return "unreadable"
    if not child.answer:
        return "contradictory"
    if not is_within_reach(child):
        return "out of reach"
    if child == parent:
        return "unchanged"
    if child.operations[:-1] == parent.operations:
        return "one of its operations once more" if child.operations[-1] in parent.operations else "another operation more"
    if child.operations == parent.operations:
        return "longer word" if child.word[:-1] == parent.word else "another word"
    return "another instruction"


def sampled_evolutions(
    model: "LlamaForCausalLM", tokenizer: "PreTrainedTokenizerFast", parents: list[Instruction], seed: int = 0
) -> list[str]:
    """One evolution of each instruction at temperature 1."""
    import torch

    torch.manual_seed(seed)
    batch = tokenizer([f"{USER}{parent}{END}{ASSISTANT}" for parent in parents], return_tensors="pt", padding=True)
    output = model.generate(**{key: batch[key] for key in ("input_ids", "attention_mask")}, max_new_tokens=72, do_sample=True, top_k=0)
    return tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


def train_creator(recipe: CreatorPolicyRecipe) -> "tuple[LlamaForCausalLM, PreTrainedTokenizerFast]":
    """The creator network and its tokenizer, which has a token for the operation that the language lacks."""
    return train(recipe, demonstration_batches(recipe), (*PHRASES, UNKNOWN_OPERATION))


def main() -> None:
    folder, recipe = command_line(__doc__, CreatorPolicyRecipe)
    model, tokenizer = train_creator(recipe)
    rng = np.random.default_rng(recipe.seed + 1)
    frequencies = operation_frequencies(0.25)
    parents = [deep_instruction(rng, int(rng.integers(1, 6)), 4, frequencies) for _ in range(600)]
    kinds = Counter(map(kind_of_evolution, parents, sampled_evolutions(model, tokenizer, parents)))
    for kind, count in kinds.most_common():
        print(f"{kind}: {count / len(parents):.3f}", flush=True)
    save(model, tokenizer, recipe, folder)


if __name__ == "__main__":
    main()
