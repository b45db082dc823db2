"""The base policy of Lettercraft deep, and the command that rebuilds it.

    python -m eva_stages.lettercraft.deep_policy OUT_DIR

It shows its steps: "planet, reverse it, tenalp, drop its first letter, enalp". Its teacher slips in single steps, and only in one way:
the word is copied. So the policy is right about a step or copies, success is the product over the steps, and what can be learned from an
instruction depends on its operations. Two operations are weak wherever they occur, three ordered pairs of operations are weak together,
and later steps are slipped more often.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from eva_stages.lettercraft.distributions import WEAK_OPERATIONS, deep_instruction, operation_frequencies
from eva_stages.lettercraft.language import OPERATIONS, STEP, Instruction
from eva_stages.lettercraft.policy import Demonstrations, TrainingRecipe, command_line, measure, save, train

WEAK_PAIRS = (
    ("reverse it", "drop its first letter"),
    ("move its first letter to the end", "swap its ends"),
    ("swap its ends", "reverse it"),
)
_POOL = 16
"""Batches that are drawn together and sorted by length, so that little of a batch is padding."""


@dataclass(frozen=True)
class DeepRecipe(TrainingRecipe):
    """The size of a network of the deep world, and the instructions that it learns from."""

    layers: int = 2
    width: int = 96
    heads: int = 3
    learning_rate: float = 3e-3
    min_letters: int = 2
    max_letters: int = 6
    max_operations: int = 5
    weak_share: float = 0.35


@dataclass(frozen=True)
class DeepPolicyRecipe(DeepRecipe):
    """Everything that decides the deep base policy's weights."""

    steps: int = 3500
    slip: float = 0.01
    weak_slip: float = 0.75
    pair_slip: float = 0.6
    depth_slips: tuple[float, ...] = (0.0, 0.05, 0.55, 0.7, 0.8)


def slip_probability(recipe: DeepPolicyRecipe, operations: tuple[str, ...], step: int) -> float:
    """How likely the teacher copies the word: by the operation, the one before it, and its place."""
    name = operations[step]
    chance = recipe.weak_slip if name in WEAK_OPERATIONS else recipe.slip
    if step and (operations[step - 1], name) in WEAK_PAIRS:
        chance = max(chance, recipe.pair_slip)
    return 1 - (1 - chance) * (1 - recipe.depth_slips[step])


def shown_steps(rng: np.random.Generator, recipe: DeepPolicyRecipe, instruction: Instruction) -> str:
    """What the teacher writes: the word, then each operation and what it makes of the word."""
    word = instruction.word
    parts = [word]
    for step, name in enumerate(instruction.operations):
        if rng.random() >= slip_probability(recipe, instruction.operations, step):
            word = OPERATIONS[name](word) or word
        parts += [name, word]
    return STEP.join(parts)


def demonstration_batches(recipe: DeepPolicyRecipe) -> Iterator[Demonstrations]:
    """Endless batches of instructions and shown steps, of similar length."""
    return sorted_batches(
        recipe,
        lambda rng, instruction: shown_steps(rng, recipe, instruction),
        lambda instruction, steps: 3 * instruction.count(STEP) + len(steps),
    )


def sorted_batches(
    recipe: DeepRecipe, respond: Callable[[np.random.Generator, Instruction], str], length: Callable[[str, str], int]
) -> Iterator[Demonstrations]:
    """Endless batches of demonstrations of similar length.

    Args:
        respond: what the teacher writes.
        length: of an instruction and what the teacher wrote.
    """
    rng = np.random.default_rng(recipe.seed)
    frequencies = operation_frequencies(recipe.weak_share)
    while True:
        pool = []
        for _ in range(_POOL * recipe.batch_size):
            operations = int(rng.integers(1, recipe.max_operations + 1))
            letters = int(rng.integers(recipe.min_letters, recipe.max_letters + 1))
            instruction = deep_instruction(rng, operations, letters, frequencies)
            pool.append((str(instruction), respond(rng, instruction)))
        pool.sort(key=lambda pair: length(*pair))
        for place in rng.permutation(_POOL):
            yield pool[place * recipe.batch_size : (place + 1) * recipe.batch_size]


def main() -> None:
    folder, recipe = command_line(__doc__, DeepPolicyRecipe)
    model, tokenizer = train(recipe, demonstration_batches(recipe))
    rng = np.random.default_rng(recipe.seed + 1)
    for operations in range(1, recipe.max_operations + 1):
        prompts = [str(deep_instruction(rng, operations, 4, operation_frequencies(0.25))) for _ in range(300)]
        print(f"{operations} operations: grade {measure(model, tokenizer, prompts, sample=True):.3f}", flush=True)
    save(model, tokenizer, recipe, folder)


if __name__ == "__main__":
    main()
