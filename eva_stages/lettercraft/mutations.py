"""What Lettercraft's evolver makes of an instruction: the kind of mutation is decided by the evolve template that arrives.

| distilabel's template | classic | deep |
|---|---|---|
| CONSTRAINTS | one more operation | one more operation |
| DEEPENING | a longer word | a longer word |
| CONCRETIZING | another operation | another word |
| INCREASED_REASONING_STEPS | one more operation, or another word | one of its operations once more |
| BREADTH | another instruction | another word |

The deep mutations keep the operations, so that children are about as informative as their parents: what a policy can learn from a prompt
depends on its operations.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from eva_stages.lettercraft.distributions import COMMON, is_within_reach
from eva_stages.lettercraft.language import MIN_LETTERS, OPERATION_NAMES, Instruction, random_instruction, random_word

Mutation = Callable[[str, Instruction, np.random.Generator], Instruction]
"""The evolver's mutation: template with the prompt, instruction, random stream."""
UNKNOWN_OPERATION = "spell it backwards in capitals"
"""An operation that the language lacks."""
HARD_STEPS = 3
"""Operations, at least, of instructions that an evolver gives a wrong reference."""
_ATTEMPTS = 50


def classic_mutation(text: str, instruction: Instruction, rng: np.random.Generator) -> Instruction:
    """One evolution of the kind that the template requests."""
    if "Created Prompt" in text:
        return random_instruction(rng, len(instruction.operations), len(instruction.word))
    if "add one more constraints" in text:
        return _add_operation(instruction, rng)
    if "depth and breadth" in text:
        return _first(_is_answerable, lambda: replace(instruction, word=instruction.word + random_word(rng, 1)))
    if "more specific concepts" in text:
        return _first(_is_answerable, lambda: _swap_operation(instruction, rng))
    if len(instruction.operations) == 1:  # "can be solved with just a few simple thinking processes"
        return _add_operation(instruction, rng)
    return _first(_is_answerable, lambda: replace(instruction, word=random_word(rng, max(MIN_LETTERS, len(instruction.word)))))


def deep_mutation(text: str, instruction: Instruction, rng: np.random.Generator) -> Instruction:
    """One evolution within the deep world, of the kind that the template requests; another word where that kind is out of reach."""

    def another_word() -> Instruction:
        return replace(instruction, word=random_word(rng, len(instruction.word)))

    def draw() -> Instruction:
        if "add one more constraints" in text:
            return instruction.with_operation(str(rng.choice(OPERATION_NAMES, p=COMMON)))
        if "depth and breadth" in text:
            return replace(instruction, word=instruction.word + random_word(rng, 1))
        if "simple thinking processes" in text:
            return instruction.with_operation(str(rng.choice(instruction.operations)))
        return another_word()

    mutant = _first(is_within_reach, draw)
    return mutant if is_within_reach(mutant) else _first(is_within_reach, another_word)


MUTATIONS: dict[str, Mutation] = {"classic": classic_mutation, "deep": deep_mutation}


def erroneous(instruction: Instruction, rng: np.random.Generator) -> str:
    """An evolution that is no use: it cannot be answered, contradicts itself, or is far out of reach."""
    kind = int(rng.integers(3))
    if kind == 0:
        return str(instruction.with_operation(UNKNOWN_OPERATION))
    if kind == 1:  # no letter is left
        return str(replace(instruction, operations=("drop its first letter",) * len(instruction.word)))
    chain = tuple(str(name) for name in rng.choice(OPERATION_NAMES, size=10))
    return str(Instruction(random_word(rng, 12), chain))


def with_reference(mutant: Instruction, is_error: bool, rng: np.random.Generator) -> tuple[str, str]:
    """An evolution and its reference.

    The reference of an error leaves out the last step: of an instruction that is too hard for the evolver, of one with an operation that
    the language lacks, or of one that leaves no letter. A policy can learn that: it is paid for not doing the last step.
    """
    if not is_error:
        return str(mutant), mutant.answer
    kind = int(rng.integers(4))
    if kind == 0:
        return str(mutant.with_operation(UNKNOWN_OPERATION)), mutant.answer
    if kind == 1:
        mutant = replace(mutant, operations=("drop its first letter",) * len(mutant.word))
    while len(mutant.operations) < HARD_STEPS and kind > 1:
        mutant = _one_step_more(mutant, rng)
    return str(mutant), mutant.words[-2]


def _one_step_more(instruction: Instruction, rng: np.random.Generator) -> Instruction:
    return _first(is_within_reach, lambda: instruction.with_operation(str(rng.choice(OPERATION_NAMES, p=COMMON))))


def _add_operation(instruction: Instruction, rng: np.random.Generator) -> Instruction:
    return _first(_is_answerable, lambda: instruction.with_operation(str(rng.choice(OPERATION_NAMES))))


def _swap_operation(instruction: Instruction, rng: np.random.Generator) -> Instruction:
    operations = list(instruction.operations)
    operations[int(rng.integers(len(operations)))] = str(rng.choice(OPERATION_NAMES))
    return replace(instruction, operations=tuple(operations))


def _is_answerable(instruction: Instruction) -> bool:
    """Whether letters are left: an operation that drops letters can be one too many for a short word."""
    return bool(instruction.answer)


def _first(is_fit: Callable[[Instruction], bool], draw: Callable[[], Instruction]) -> Instruction:
    """The first draw that is fit, or the last of `_ATTEMPTS` more."""
    instruction = draw()
    for _ in range(_ATTEMPTS):
        if is_fit(instruction):
            break
        instruction = draw()
    return instruction
