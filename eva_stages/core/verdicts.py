"""What a judge's label is worth: the one table that the judging steps, the official scores and the report share.

A judging step writes what each judgment means for the model into the column `outcome`: 1 won, 0.5 tie, 0 lost, a number between for
a judge that gives probabilities, null for no verdict. Whoever counts wins reads that column. Judgments written before there was such a
column get it from the label or the preference that they do have.
"""

from typing import Any, Literal

Version = Literal["v0.1", "v2.0"]

STRONG = 3
"""Battles that `>>` counts for."""
_V01 = {"A>>B": (1.0, STRONG), "A>B": (1.0, 1), "A=B": (0.5, 1), "B>A": (0.0, 1), "B>>A": (0.0, STRONG)}
_V2 = _V01 | {"A<<B": (0.0, STRONG), "A<B": (0.0, 1), "B=A": (0.5, 1), "B<A": (1.0, 1), "B<<A": (1.0, STRONG)}
LABELS: dict[Version, dict[str, tuple[float, int]]] = {"v0.1": _V01, "v2.0": _V2}
"""Per version of Arena-Hard, what each label gives assistant A (1 win, 0.5 tie, 0 loss) and for how many battles."""


def outcome_of_label(label: str | None, game: int, version: Version) -> float | None:
    """What a label means for the model; None for no label and for one that the version does not know.

    Args:
        game: 0 = the baseline was assistant A, 1 = the model was.
    """
    if label not in LABELS[version]:
        return None
    for_a, _ = LABELS[version][label]
    return for_a if game == 1 else 1 - for_a


def outcome_of_preference(preference: float | None) -> float | None:
    """What AlpacaEval's preference, 1 (baseline) to 2 (model), means for the model."""
    return None if preference is None else preference - 1


def outcome_of_row(row: dict[str, Any], stage: str) -> float | None:
    """The outcome of a row of judgments, whether or not it has the column.

    Args:
        row: with `outcome`, or with `verdict`, `game` and perhaps `score`.
        stage: that wrote it, such as `eval-arena-hard-v2.0-judge`, whose name says which labels it knows.
    """
    if "outcome" in row:
        value: float | None = row["outcome"]
        return value
    if "alpaca-eval" in stage:
        return outcome_of_preference(row.get("score"))
    return outcome_of_label(row["verdict"], row["game"], "v2.0" if "v2.0" in stage else "v0.1")
