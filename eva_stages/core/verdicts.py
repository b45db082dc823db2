"""The outcome of a judgment: the column that scores, health and reports read, for every kind of judge.

`outcome` is a number from 0 to 1 for the judged model; null = no verdict. In a game against a baseline, 1 = won, 0.5 = tie, 0 = lost; a
judge that returns probabilities gives a number between. For MT-Bench's `rating` r from 1 to 10 it is (r - 1) / 9.
"""

from typing import Any, Literal

Version = Literal["v0.1", "v2.0"]

STRONG = 3
"""Battles that `>>` counts for."""
_V01 = {"A>>B": (1.0, STRONG), "A>B": (1.0, 1), "A=B": (0.5, 1), "B>A": (0.0, 1), "B>>A": (0.0, STRONG)}
_V2 = _V01 | {"A<<B": (0.0, STRONG), "A<B": (0.0, 1), "B=A": (0.5, 1), "B<A": (1.0, 1), "B<<A": (1.0, STRONG)}
LABELS: dict[Version, dict[str, tuple[float, int]]] = {"v0.1": _V01, "v2.0": _V2}
"""Per version of Arena-Hard, what each label gives assistant A (1 win, 0.5 tie, 0 loss) and for how many battles."""
LOWEST_RATING, HIGHEST_RATING = 1, 10


def outcome_of_label(label: str | None, game: int, version: Version) -> float | None:
    """The outcome of a label; None for no label and for one that the version does not know.

    Args:
        game: 0 = the baseline was assistant A, 1 = the model was.
    """
    if label not in LABELS[version]:
        return None
    for_a, _ = LABELS[version][label]
    return for_a if game == 1 else 1 - for_a


def outcome_of_preference(preference: float | None) -> float | None:
    """The outcome of AlpacaEval's preference, 1 (baseline) to 2 (model)."""
    return None if preference is None else preference - 1


def preference_of_outcome(outcome: float | None) -> float | None:
    """AlpacaEval's preference; the inverse of `outcome_of_preference`, to the last digit."""
    return None if outcome is None else outcome + 1


def outcome_of_rating(rating: float | None) -> float | None:
    """The outcome of MT-Bench's rating."""
    return None if rating is None else (rating - LOWEST_RATING) / (HIGHEST_RATING - LOWEST_RATING)


def outcome_of_row(row: dict[str, Any], benchmark: str | None) -> float | None:
    """The outcome of a row of judgments of any version of eva; 0.1.0 wrote no such column.

    Args:
        row: with `outcome`, or with `verdict`, `game` and perhaps `score` (AlpacaEval's preference).
        benchmark: of the judging stage (`core.kinds.StageName`); it says which labels there are.
    """
    if "outcome" in row:
        value: float | None = row["outcome"]
        return value
    if benchmark == "alpaca-eval":
        return outcome_of_preference(row.get("score"))
    return outcome_of_label(row["verdict"], row["game"], "v2.0" if benchmark == "arena-hard-v2.0" else "v0.1")
