"""An evolver that writes random words, for `benchmarks.online_buffer`."""

import numpy as np

LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz"))


def text(rng: np.random.Generator) -> str:
    """Thirty words of five letters."""
    return " ".join("".join(word) for word in rng.choice(LETTERS, (30, 5)).tolist())


def evolve(prompt: str, reference: str | None, rng: np.random.Generator) -> tuple[str, str | None, str]:
    return text(rng), None, "random"
