"""Arena-Hard: what a judge's text says, and what a verdict is worth.

Each question is judged twice against a baseline model: in game 0 the baseline is assistant A, in game 1 the model is. A strong verdict
counts as three battles. The two versions read a text differently: v0.1 wants one label in double brackets, and two that differ are no
verdict; v2.0 upper-cases the text and takes the last label. Both functions return the label as the official files store it, even one
with no meaning such as `A>>A`; `battle` decides what counts. They are given the judge's text alone, so that a label in a candidate's
answer is never seen.
"""

import re
from typing import Literal, NamedTuple

Version = Literal["v0.1", "v2.0"]

STRONG = 3
"""Battles that `>>` counts for."""

_DOUBLE = re.compile(r"\[\[([AB<>=]+)\]\]")
_SINGLE = re.compile(r"\[([AB<>=]+)\]")
_A_WINS_V01 = {"A>>B": (1.0, STRONG), "A>B": (1.0, 1), "A=B": (0.5, 1), "B>A": (0.0, 1), "B>>A": (0.0, STRONG)}
_A_WINS_V2 = _A_WINS_V01 | {"A<<B": (0.0, STRONG), "A<B": (0.0, 1), "B=A": (0.5, 1), "B<A": (1.0, 1), "B<<A": (1.0, STRONG)}
LABELS: dict[Version, dict[str, tuple[float, int]]] = {"v0.1": _A_WINS_V01, "v2.0": _A_WINS_V2}
"""Per version, what each label gives assistant A (1 win, 0.5 tie, 0 loss) and for how many battles."""


class Battle(NamedTuple):
    """Outcome of one game for the model: 1 won, 0.5 tie, 0 lost; and the number of battles it counts for."""

    outcome: float
    weight: int


def verdict_v01(text: str | None) -> str | None:
    """The label of a v0.1 judgment; None if there is none or if two differ.

    Args:
        text: the judge's text, all attempts joined by newlines.
    """
    labels = set(_DOUBLE.findall(text or ""))
    return labels.pop() if len(labels) == 1 else None


def second_attempt_v01(text: str | None) -> bool:
    """Whether the judge is asked once more: only if no label stands in its text. Contradicting labels are final."""
    return _DOUBLE.search(text or "") is None


def verdict_v2(text: str | None) -> str | None:
    """The label of a v2.0 judgment: the last in double brackets, else the last in single ones; None if there is none."""
    upper = (text or "").upper()
    labels = _DOUBLE.findall(upper) or _SINGLE.findall(upper)
    return labels[-1] if labels else None


def battle(verdict: str | None, game: int, version: Version) -> Battle | None:
    """What a verdict is worth to the model; None for a label that the version does not know, which counts for nobody.

    Args:
        game: 0 = the baseline was assistant A, 1 = the model was.
    """
    if verdict not in LABELS[version]:
        return None
    outcome, weight = LABELS[version][verdict]
    return Battle(outcome if game == 1 else 1 - outcome, weight)
