"""The distributions that Lettercraft's instructions are drawn from: seed prompts and held-out prompts of both worlds.

`classic` and `classic_target` are the quickstart's. `deep` has one or two operations, and the two that the deep base policy is weak in
are rare; `deep_target` has four or five, and they are frequent.
"""

from collections.abc import Callable

import numpy as np

from eva_stages.core.config.prompts_config import LettercraftDistribution
from eva_stages.lettercraft.language import MIN_LETTERS, OPERATION_NAMES, Instruction, random_instruction, random_word

WEAK_OPERATIONS = ("sort its letters", "replace each letter with the next one")
LONGEST_WORD = 6
"""Letters that a word of the deep world has at most, also on the way to the answer."""


def operation_frequencies(weak_share: float) -> np.ndarray:
    """The frequencies of the operations, if `weak_share` of them are weak ones."""
    weak = np.array([name in WEAK_OPERATIONS for name in OPERATION_NAMES])
    return np.where(weak, weak_share / weak.sum(), (1 - weak_share) / (~weak).sum())


COMMON = operation_frequencies(0.1)
"""The operations of the deep world's seed prompts, and those that its evolver adds."""
DEMANDING = operation_frequencies(0.6)
"""The operations of the deep world's target."""


def is_within_reach(instruction: Instruction) -> bool:
    """Whether an instruction belongs to the deep world: no word on the way is empty or longer than `LONGEST_WORD`."""
    return all(1 <= len(word) <= LONGEST_WORD for word in instruction.words)


def deep_instruction(rng: np.random.Generator, operations: int, letters: int, frequencies: np.ndarray) -> Instruction:
    """Draw an instruction of the deep world of the given size."""
    while True:
        chosen = tuple(str(name) for name in rng.choice(OPERATION_NAMES, size=operations, p=frequencies))
        instruction = Instruction(random_word(rng, letters), chosen)
        if is_within_reach(instruction):
            return instruction


def _classic(rng: np.random.Generator) -> Instruction:
    """One or two operations on short words, and a few harder instructions."""
    hard = rng.random() < 0.1
    operations = int(rng.integers(2, 4)) if hard else int(rng.choice([1, 2], p=[0.6, 0.4]))
    letters = int(rng.integers(5, 9)) if hard else int(rng.integers(MIN_LETTERS + 1, 6))
    return random_instruction(rng, operations, letters)


def _classic_target(rng: np.random.Generator) -> Instruction:
    """One to three operations on three to nine letters."""
    return random_instruction(rng, int(rng.integers(1, 4)), int(rng.integers(3, 10)))


def _deep(rng: np.random.Generator) -> Instruction:
    return deep_instruction(rng, int(rng.integers(1, 3)), int(rng.integers(3, 6)), COMMON)


def _deep_target(rng: np.random.Generator) -> Instruction:
    return deep_instruction(rng, int(rng.integers(4, 6)), int(rng.integers(4, 6)), DEMANDING)


DISTRIBUTIONS: dict[LettercraftDistribution, Callable[[np.random.Generator], Instruction]] = {
    "classic": _classic,
    "classic_target": _classic_target,
    "deep": _deep,
    "deep_target": _deep_target,
}
