"""MT-Bench, single-answer grading: the rating in a judge's text, and the scores per turn, per category and over all.

A judge ends its explanation with `[[rating]]`, 1 to 10. The first rating counts, with single brackets as the fallback; a text without one
has no rating (null; -1 in official files). A number outside 1 to 10 is no rating either, and is counted; FastChat accepts it, so a
single [[80]] moves a mean by 0.45 (docs/differences.md). `rating` reads the judge's text only, never a response in its prompt. As in the
official tool the score is the plain mean over all rated rows, not the mean of the turns' means, and a repeated row counts again.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from eva_stages.core.verdicts import HIGHEST_RATING, LOWEST_RATING
from eva_stages.evaluation.judgment_files import Record, judge_field, judgment_field, text_field
from eva_stages.evaluation.statistics import mean_values

CATEGORIES = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
"""In the order of their questions."""
OFFICIAL_CATEGORIES = {str(81 + place): CATEGORIES[place // 10] for place in range(80)}
"""Categories of the official questions, by id: ten questions each, ids from 81."""

_DOUBLE = re.compile(r"\[\[(\d+\.?\d*)\]\]")
_SINGLE = re.compile(r"\[(\d+\.?\d*)\]")


class Rating(NamedTuple):
    """A rated turn; `value` is None if the judge gave no rating, or a number outside the scale."""

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
    match = _DOUBLE.search(text or "") or _SINGLE.search(text or "")
    return float(match.group(1)) if match else None


def parse_rating(record: Record) -> Rating:
    """A row of single-answer judgments; the rating is the stored one, else that in the judge's text."""
    row = record.row
    if row["turn"] not in (1, 2):
        raise ValueError(f"turn is {row['turn']!r}; expected 1 or 2")
    stored_score = row["score"] if "score" in row else _number(judgment_field(row["judgment"]))
    if isinstance(stored_score, bool) or not isinstance(stored_score, int | float | None):
        raise ValueError(f"score is {stored_score!r}; expected a number, -1 or null for no rating")
    score = None if stored_score is None or stored_score == -1 or stored_score != stored_score else stored_score
    outside = score is not None and not LOWEST_RATING <= score <= HIGHEST_RATING
    question, model, turn = text_field(row, "question_id"), text_field(row, "model"), int(row["turn"])
    return Rating(question, model, turn, None if score is None or outside else float(score), judge_field(row), outside)


def category_of(question: str) -> str | None:
    """The category of one of the 80 official questions, by its id; None for any other id."""
    return OFFICIAL_CATEGORIES.get(question)


def question_categories(records: Iterable[Record]) -> dict[str, str]:
    """Categories by question id, of a question file's rows."""
    return {text_field(record.row, "question_id"): text_field(record.row, "category") for record in records}


def scores(ratings: Sequence[Rating], categories: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The official figures of one model's ratings; a figure without any rating is null.

    Args:
        categories: by question id; None: those of the official questions.

    Returns:
        score, turn1, turn2, categories (by name), n (rated rows), unrated, and out_of_range among these.
    """
    rated_turns = [rating for rating in ratings if rating.value is not None]
    by_category: dict[str, list[Rating]] = defaultdict(list)
    for rating in rated_turns:
        name = categories.get(rating.question) if categories is not None else category_of(rating.question)
        by_category[name or "unknown"].append(rating)
    order = [*CATEGORIES, *sorted(by_category.keys() - set(CATEGORIES))]
    return {
        "score": _mean(rated_turns),
        "turn1": _mean([rating for rating in rated_turns if rating.turn == 1]),
        "turn2": _mean([rating for rating in rated_turns if rating.turn == 2]),
        "categories": {name: _mean(by_category[name]) for name in order if name in by_category},
        "n": len(rated_turns),
        "unrated": len(ratings) - len(rated_turns),
        "out_of_range": sum(rating.out_of_range for rating in ratings),
    }


def values(ratings: Sequence[Rating]) -> pa.Table:
    """Each question's mean rating over its rated turns, with their number as weight."""
    return mean_values((rating.question, rating.value) for rating in ratings)


def radar(by_model: Mapping[str, Mapping[str, float | None]], path: Path) -> None:
    """Draw the scores per category as a radar from 0 to 10, a line per model; the suffix sets the format, PNG or SVG.

    Args:
        by_model: `categories` of `scores`, by model; an axis without a score is 0.
    """
    from matplotlib.figure import Figure

    names = [name for name in CATEGORIES if any(name in scores for scores in by_model.values())]
    angles = np.linspace(0, 2 * np.pi, len(names), endpoint=False)
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes: Any = figure.add_subplot(projection="polar")
    for model, scores in by_model.items():
        heights = [scores.get(name) or 0.0 for name in names]
        axes.plot(np.append(angles, angles[:1]), heights + heights[:1], label=model)
    axes.set_xticks(angles, names)
    axes.set_ylim(0, 10)
    axes.tick_params(axis="x", pad=14)
    axes.set_title("MT-Bench by category")
    figure.legend(loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=150)


def _mean(ratings: Sequence[Rating]) -> float | None:
    return float(np.mean([rating.value for rating in ratings])) if ratings else None
