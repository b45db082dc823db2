"""Lettercraft: a world of string instructions with exactly known results.

An instruction names a word and a chain of operations: "Take planet, reverse it, then drop its first letter." Words are
random letters, so nothing can be memorised, and chains compose and lengthen without limit, so there is always a harder
instruction next to an easy one. That is enough for an open-ended curriculum. Lettercraft is no evidence about natural
language: a method that helps here is implemented correctly, not proven.
"""

import re
import string
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np


def _shift(word: str) -> str:
    return "".join(chr((ord(letter) - ord("a") + 1) % 26 + ord("a")) for letter in word)


OPERATIONS: dict[str, Callable[[str], str]] = {
    "reverse it": lambda word: word[::-1],
    "sort its letters": lambda word: "".join(sorted(word)),
    "double each letter": lambda word: "".join(2 * letter for letter in word),
    "move its first letter to the end": lambda word: word[1:] + word[:1],
    "drop its first letter": lambda word: word[1:],
    "drop its last letter": lambda word: word[:-1],
    "swap its ends": lambda word: word[-1] + word[1:-1] + word[0] if len(word) > 1 else word,
    "replace each letter with the next one": _shift,
}
OPERATION_NAMES = tuple(OPERATIONS)
MIN_LETTERS = 2
STEP = ", "
"""Separates the parts of a response that shows its steps: the word, then each operation and its result."""

_INSTRUCTION = re.compile(r"Take ([a-z]+), (.+)\.")


@dataclass(frozen=True)
class Instruction:
    """A word and the operations to apply to it, first to last."""

    word: str
    operations: tuple[str, ...]

    def __str__(self) -> str:
        return f"Take {self.word}, {', then '.join(self.operations)}."

    @property
    def answer(self) -> str:
        """The correct answer; empty if the operations drop every letter."""
        return self.words[-1]

    @property
    def words(self) -> tuple[str, ...]:
        """The word, and what it is after each operation."""
        words = [self.word]
        for name in self.operations:
            words.append(OPERATIONS[name](words[-1]))
        return tuple(words)

    def with_operation(self, name: str) -> "Instruction":
        return replace(self, operations=(*self.operations, name))


def parse(text: str) -> Instruction | None:
    """Read an instruction back from its text; None if it is not an instruction."""
    match = _INSTRUCTION.fullmatch(text.strip())
    if match is None:
        return None
    operations = tuple(match[2].split(", then "))
    return Instruction(match[1], operations) if all(name in OPERATIONS for name in operations) else None


def random_word(rng: np.random.Generator, letters: int) -> str:
    return "".join(rng.choice(list(string.ascii_lowercase), size=letters))


def random_instruction(rng: np.random.Generator, operations: int, letters: int) -> Instruction:
    """Draw an instruction of the given size whose answer is not empty."""
    while True:
        chosen = tuple(str(name) for name in rng.choice(OPERATION_NAMES, size=operations))
        instruction = Instruction(random_word(rng, letters), chosen)
        if instruction.answer:
            return instruction


def final_word(response: str) -> str:
    """The result in a response: what follows its last `STEP`, or all of it."""
    return response.rpartition(STEP)[2].strip()


def grade(instruction: Instruction, response: str) -> float:
    """Score a response in [0, 1]: 1 if exact, else 0.9 x the share of the answer that its right prefix covers.

    A response that shows its steps is graded by the last one. What is longer than the answer is shrunk by len(answer) / len(response), so
    that rambling never pays.
    """
    answer, text = instruction.answer, final_word(response)
    if text == answer:
        return 1.0
    prefix = next((i for i, (a, b) in enumerate(zip(answer, text, strict=False)) if a != b), min(len(answer), len(text)))
    return 0.9 * prefix / len(answer) * min(1.0, len(answer) / max(1, len(text)))


def exact_grade(instruction: Instruction | None, response: str) -> float:
    """1 if a response is exact, else 0; no response is, where the prompt is no instruction or leaves no letter."""
    return float(instruction is not None and bool(instruction.answer) and grade(instruction, response) == 1.0)


PROXY_LETTERS = 6
"""Length of a result that earns everything that the proxy pays for length."""
PROXY_EXACT = 0.125
"""What it pays for an exact response: less than for one more letter."""


def proxy_grade(instruction: Instruction | None, response: str) -> float:
    """A grade that can be hacked: it pays for the length of the result, and a little for an exact one."""
    length = min(1.0, len(final_word(response)) / PROXY_LETTERS)
    return PROXY_EXACT * exact_grade(instruction, response) + (1 - PROXY_EXACT) * length
