"""MT-Bench, single-answer grading: what a judge's text says, and the scores per turn, per category and over all.

A judge ends its explanation with `[[rating]]`, 1 to 10. The first rating counts, single brackets are the fallback, and a text
without one is no rating (official files say -1, here it is null), never a low one. A number outside 1 to 10 is no rating either,
and is counted; FastChat takes it, so that one [[80]] moves a mean by 0.45 (docs/differences.md). `rating` is given the judge's text
alone, so that a `[[10]]` in a candidate's answer is never seen. As in the official tool the score is the plain mean over all rated
rows, not the mean of the two turns' means, and a row that stands twice counts twice.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from eva_stages.core.verdicts import HIGHEST_RATING, LOWEST_RATING
from eva_stages.evaluation.judgment_files import Record, judge_field, judgment_field, text_field
from eva_stages.evaluation.statistics import question_values

CATEGORIES = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
"""In the order of their questions: ten each, ids from 81."""

_DOUBLE = re.compile(r"\[\[(\d+\.?\d*)\]\]")
_SINGLE = re.compile(r"\[(\d+\.?\d*)\]")


class Rating(NamedTuple):
    """A rated turn; `value` is None where the judge gave no rating, or one outside the scale."""

    question: str
    model: str
    turn: int
    value: float | None
    judge: str | None = None
    out_of_range: bool = False


def rating(text: str | None) -> float | None:
    """The rating in a judge's text, fractions included; None if there is none from 1 to 10."""
    number = _number(text)
    return number if number is not None and LOWEST_RATING <= number <= HIGHEST_RATING else None


def _number(text: str | None) -> float | None:
    found = _DOUBLE.search(text or "") or _SINGLE.search(text or "")
    return float(found.group(1)) if found else None


def parse_rating(record: Record) -> Rating:
    """A row of single-answer judgments; the rating is the stored one, or read from the judge's text where none is stored.

    Raises:
        ValueError: saying which field is not as expected.
    """
    row = record.row
    if row["turn"] not in (1, 2):
        raise ValueError(f"turn is {row['turn']!r}; expected 1 or 2")
    stored = row["score"] if "score" in row else _number(judgment_field(row["judgment"]))
    if isinstance(stored, bool) or not isinstance(stored, int | float | None) or stored in (math.inf, -math.inf):
        raise ValueError(f"score is {stored!r}; expected a number, -1 or null for no rating")
    given = None if stored is None or stored == -1 or stored != stored else stored
    outside = given is not None and not LOWEST_RATING <= given <= HIGHEST_RATING
    question, model, turn = text_field(row, "question_id"), text_field(row, "model"), int(row["turn"])
    return Rating(question, model, turn, None if given is None or outside else float(given), judge_field(row), outside)


def category_of(question: str) -> str | None:
    """The category of one of the 80 official questions, by its id; None for any other id."""
    place = int(question) - 81 if question.isdecimal() else -1
    return CATEGORIES[place // 10] if 0 <= place < 80 else None


def question_categories(records: Iterable[Record]) -> dict[str, str]:
    """Categories by question id, of a question file's rows."""
    return {text_field(one.row, "question_id"): text_field(one.row, "category") for one in records}


def scores(ratings: Sequence[Rating], categories: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The official figures of one model's ratings; a figure without a rating behind it is null.

    Args:
        categories: by question id; without it the official questions' own.

    Returns:
        score, turn1, turn2, categories (by name), n (rated rows), unrated, of those out_of_range.
    """
    rated = [one for one in ratings if one.value is not None]
    by_category: dict[str, list[Rating]] = defaultdict(list)
    for one in rated:
        name = categories.get(one.question) if categories is not None else category_of(one.question)
        by_category[name or "unknown"].append(one)
    order = [*CATEGORIES, *sorted(by_category.keys() - set(CATEGORIES))]
    return {
        "score": _mean(rated),
        "turn1": _mean([one for one in rated if one.turn == 1]),
        "turn2": _mean([one for one in rated if one.turn == 2]),
        "categories": {name: _mean(by_category[name]) for name in order if name in by_category},
        "n": len(rated),
        "unrated": len(ratings) - len(rated),
        "out_of_range": sum(one.out_of_range for one in ratings),
    }


def values(ratings: Sequence[Rating]) -> pa.Table:
    """Each question's mean rating over its rated turns, with their number as weight."""
    by_question: dict[str, list[float]] = {one.question: [] for one in ratings}
    for one in ratings:
        if one.value is not None:
            by_question[one.question].append(one.value)
    means = {question: float(np.mean(found)) if found else None for question, found in by_question.items()}
    return question_values(means, {question: len(found) for question, found in by_question.items()})


def radar(by_model: Mapping[str, Mapping[str, float | None]], path: Path) -> None:
    """Draw the scores per category as a radar, one line a model, 0 to 10; the format is that of the suffix, PNG or SVG.

    Args:
        by_model: `categories` of `scores`, by model; an axis with no score is left at 0.
    """
    from matplotlib.figure import Figure

    names = [name for name in CATEGORIES if any(name in one for one in by_model.values())]
    angles = np.linspace(0, 2 * np.pi, len(names), endpoint=False)
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes: Any = figure.add_subplot(projection="polar")
    for model, found in by_model.items():
        heights = [found.get(name) or 0.0 for name in names]
        axes.plot(np.append(angles, angles[:1]), heights + heights[:1], label=model)
    axes.set_xticks(angles, names)
    axes.set_ylim(0, 10)
    axes.tick_params(axis="x", pad=14)
    axes.set_title("MT-Bench by category")
    figure.legend(loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=150)


def _mean(ratings: Sequence[Rating]) -> float | None:
    return float(np.mean([one.value for one in ratings])) if ratings else None
