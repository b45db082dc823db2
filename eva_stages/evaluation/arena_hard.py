"""Arena-Hard: what a judge's text says, and what a verdict is worth.

Each question is judged twice against a baseline model: in game 0 the baseline is assistant A, in game 1 the model is. A strong verdict
counts as three battles. The two versions read a text differently: v0.1 wants one label in double brackets, and two that differ are no
verdict; v2.0 upper-cases the text and takes the last label. Both functions return the label as the official files store it, even one
with no meaning such as `A>>A`; `battle` decides what counts. They are given the judge's text alone, so that a label in a candidate's
answer is never seen. Scores of battles are in `bradley_terry`, style control in `arena_style`.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from eva_stages.core.verdicts import LABELS, Version, outcome_of_label
from eva_stages.evaluation.judgment_files import Record, judge_field, judgment_field, text_field

BASELINES = {"arena-hard-v0.1": "gpt-4-0314", "creative_writing": "gemini-2.0-flash-001"}
"""The official baseline of a category; all other categories of v2.0 have `V2_BASELINE`."""
V2_BASELINE = "o3-mini-2025-01-31"
V2_HEADLINE = "hard_prompt"
"""The category whose figure is the headline of v2.0, as in the official tool."""

_DOUBLE = re.compile(r"\[\[([AB<>=]+)\]\]")
_SINGLE = re.compile(r"\[([AB<>=]+)\]")


class Battle(NamedTuple):
    """Outcome of one game for the model: 1 won, 0.5 tie, 0 lost; and the number of battles it counts for."""

    outcome: float
    weight: int


class Judgment(NamedTuple):
    """A question judged in both orders; a verdict is None where the judge gave none."""

    version: Version
    question: str
    category: str
    model: str
    baseline: str
    verdicts: tuple[str | None, ...]
    judge: str | None = None


class Battles(NamedTuple):
    """Weighted battles, one entry each in the official order, a strong verdict being three; all of shape (n,).

    `outcome` is that of model b: 1 won, 0.5 tie, 0 lost.
    """

    question: np.ndarray
    a: np.ndarray
    b: np.ndarray
    outcome: np.ndarray

    def where(self, mask: np.ndarray) -> "Battles":
        return Battles(*(column[mask] for column in self))


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
    outcome = outcome_of_label(verdict, game, version)
    return None if verdict is None or outcome is None else Battle(outcome, LABELS[version][verdict][1])


def game_battles(verdicts: Sequence[str | None], version: Version) -> list[Battle]:
    """The battles of one question's games; in v2.0 a game without verdict takes the other with it.

    v2.0 counts game 1 before game 0, as the official tool does; the order matters to a seeded bootstrap only.
    """
    games = [battle(verdict, game, version) for game, verdict in enumerate(verdicts)]
    known = [game for game in games if game is not None]
    if version == "v0.1":
        return known
    return known[::-1] if len(known) == 2 else []


def battles_of(judgments: Sequence[Judgment]) -> Battles:
    """The weighted battles of judgments, in their order."""
    rows = [
        (one.question, one.baseline, one.model, game.outcome)
        for one in judgments
        for game in game_battles(one.verdicts, one.version)
        for _ in range(game.weight)
    ]
    return _battles(rows)


def parse_judgment(record: Record) -> Judgment:
    """A row of raw judgments, of 2024 (`question_id`) or current (`uid`).

    Raises:
        ValueError: saying which field is not as expected.
    """
    row = record.row
    question = text_field(row, "question_id", "uid")
    old = row.get("question_id") is not None
    category = str(row.get("category") or ("arena-hard-v0.1" if old else V2_HEADLINE))
    version: Version = "v0.1" if old or category == "arena-hard-v0.1" else "v2.0"
    games = row["games"]
    if not isinstance(games, list) or not 1 <= len(games) <= 2:
        raise ValueError("games is not a list of two; expected one entry per order, each with judgment and score")
    verdicts = tuple(_stored_verdict(game, version) for game in games)
    baseline = row.get("baseline") or BASELINES.get(category, V2_BASELINE)
    return Judgment(version, question, category, text_field(row, "model"), str(baseline), verdicts, judge_field(row))


def parse_battle(record: Record) -> tuple[str, str, str, float]:
    """A row of a weighted battles file as (question, model_a, model_b, outcome of model_b).

    Raises:
        ValueError: if the winner is none of the four official words.
    """
    row = record.row
    words = {"model_a": 0.0, "model_b": 1.0, "tie": 0.5, "tie (bothbad)": 0.5}
    if not isinstance(row["winner"], str) or row["winner"] not in words:
        raise ValueError(f"winner is {row['winner']!r}; expected {', '.join(words)}")
    return text_field(row, "question_id", "uid"), text_field(row, "model_a"), text_field(row, "model_b"), words[row["winner"]]


def battle_file(rows: Sequence[tuple[str, str, str, float]]) -> tuple[Battles, str]:
    """Battles of a weighted battles file and their baseline: gpt-4-0314, or the first model that is in every battle.

    Raises:
        ValueError: if no model is in every battle, so that there is nothing to give win rates against.
    """
    battles = _battles(rows)
    for baseline in dict.fromkeys(["gpt-4-0314", *battles.a, *battles.b]):
        if ((battles.a == baseline) | (battles.b == baseline)).all():
            return against(battles, baseline), baseline
    if ((battles.a == "gpt-4-0314") | (battles.b == "gpt-4-0314")).any():
        return battles, "gpt-4-0314"
    raise ValueError("no model is in every battle, and gpt-4-0314 is in none; expected battles against one baseline")


def against(battles: Battles, baseline: str) -> Battles:
    """The same battles with the baseline as model a."""
    turned = (battles.b == baseline) & (battles.a != baseline)
    a, b = np.where(turned, battles.b, battles.a), np.where(turned, battles.a, battles.b)
    return Battles(battles.question, a, b, np.where(turned, 1 - battles.outcome, battles.outcome))


def _battles(rows: Sequence[tuple[str, str, str, float]]) -> Battles:
    question, a, b, outcome = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Battles(np.array(question, object), np.array(a, object), np.array(b, object), np.array(outcome, float))


def _stored_verdict(game: Any, version: Version) -> str | None:
    """A game's verdict as its file stores it; read from the judge's text where the file has none stored."""
    if game is None:
        return None
    if not isinstance(game, dict) or not ({"score", "judgment"} & game.keys()):
        raise ValueError("a game is no object with judgment and score")
    if "score" in game:
        if not isinstance(game["score"], str | None):
            raise ValueError(f"a game's score is {game['score']!r}; expected a label such as A>B, or null")
        return game["score"]
    return (verdict_v01 if version == "v0.1" else verdict_v2)(judgment_field(judge_text(game["judgment"])))


def judge_text(judgment: Any) -> Any:
    """The judge's text: the judgment itself, or its `answer` in current files."""
    return judgment.get("answer") if isinstance(judgment, dict) else judgment
