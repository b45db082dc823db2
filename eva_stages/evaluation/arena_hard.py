"""Arena-Hard: the verdict in a judge's text, and its battles.

Each question is judged twice against a baseline model: in game 0 the baseline is assistant A, in game 1 the model is. A strong verdict
counts as three battles. The versions read a text differently: v0.1 needs one label in double brackets, and two different labels are no
verdict; v2.0 upper-cases the text and takes the last label. Both functions return the label as the official files store it, even a
meaningless one such as `A>>A`; `battle` decides what counts. They read the judge's text only, never a response that it quotes from the
prompt. Scores of battles are in `bradley_terry`, style control in `arena_style`.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from eva_stages.core.verdicts import LABELS, Version, outcome_of_label
from eva_stages.evaluation.judgment_files import Record, judge_field, judgment_field, text_field

BASELINES = {"arena-hard-v0.1": "gpt-4-0314", "creative_writing": "gemini-2.0-flash-001"}
"""Official baseline by category; the other categories of v2.0 have `V2_BASELINE`."""
V2_BASELINE = "o3-mini-2025-01-31"
V2_HEADLINE = "hard_prompt"
"""The category of v2.0's main figure, as in the official tool."""

_DOUBLE = re.compile(r"\[\[([AB<>=]+)\]\]")
_SINGLE = re.compile(r"\[([AB<>=]+)\]")


class Judgment(NamedTuple):
    """A question judged in both orders; None = the judge gave no verdict."""

    version: Version
    question: str
    category: str
    model: str
    baseline: str
    verdicts: tuple[str | None, ...]
    judge: str | None = None


class Battles(NamedTuple):
    """Weighted battles in the official order, a strong verdict as three entries; all of shape (n,).

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
    """Whether the judge is asked again: only if its text has no label. Contradicting labels are final."""
    return _DOUBLE.search(text or "") is None


def verdict_v2(text: str | None) -> str | None:
    """The label of a v2.0 judgment: the last one in double brackets, else the last one in single brackets; None if there is none."""
    upper = (text or "").upper()
    labels = _DOUBLE.findall(upper) or _SINGLE.findall(upper)
    return labels[-1] if labels else None


def battle(verdict: str | None, game: int, version: Version) -> tuple[float, int] | None:
    """A verdict's outcome for the model and the number of its battles; None for a label that the version does not have.

    Args:
        game: 0 = the baseline was assistant A, 1 = the model was.
    """
    outcome = outcome_of_label(verdict, game, version)
    return None if verdict is None or outcome is None else (outcome, LABELS[version][verdict][1])


def game_battles(verdicts: Sequence[str | None], version: Version) -> list[tuple[float, int]]:
    """The battles of a question's games; in v2.0 a question counts only if both games have a verdict.

    v2.0 has game 1 before game 0, as the official tool; the order matters for a seeded bootstrap only.
    """
    games = [battle(verdict, game, version) for game, verdict in enumerate(verdicts)]
    battles = [game for game in games if game is not None]
    if version == "v0.1":
        return battles
    return battles[::-1] if len(battles) == 2 else []


def battles_of(judgments: Sequence[Judgment]) -> Battles:
    """The weighted battles of judgments, in their order."""
    rows = [
        (judgment.question, judgment.baseline, judgment.model, outcome)
        for judgment in judgments
        for outcome, count in game_battles(judgment.verdicts, judgment.version)
        for _ in range(count)
    ]
    return _battles(rows)


def parse_judgment(record: Record) -> Judgment:
    """A row of raw judgments, of 2024 (`question_id`) or current (`uid`)."""
    row = record.row
    question = text_field(row, "question_id", "uid")
    old = row.get("question_id") is not None
    category = str(row.get("category") or ("arena-hard-v0.1" if old else V2_HEADLINE))
    version: Version = "v0.1" if old or category == "arena-hard-v0.1" else "v2.0"
    games = row["games"]
    if not isinstance(games, list) or not 1 <= len(games) <= 2:
        raise ValueError("games is not a list of two; expected an entry per order, each with judgment and score")
    verdicts = tuple(_stored_verdict(game, version) for game in games)
    baseline = row.get("baseline") or BASELINES.get(category, V2_BASELINE)
    return Judgment(version, question, category, text_field(row, "model"), str(baseline), verdicts, judge_field(row))


def parse_battle(record: Record) -> tuple[str, str, str, float]:
    """A row of a weighted battles file as (question, model_a, model_b, outcome of model_b)."""
    row = record.row
    words = {"model_a": 0.0, "model_b": 1.0, "tie": 0.5, "tie (bothbad)": 0.5}
    if not isinstance(row["winner"], str) or row["winner"] not in words:
        raise ValueError(f"winner is {row['winner']!r}; expected {', '.join(words)}")
    return text_field(row, "question_id", "uid"), text_field(row, "model_a"), text_field(row, "model_b"), words[row["winner"]]


def battle_file(rows: Sequence[tuple[str, str, str, float]]) -> tuple[Battles, str]:
    """Battles of a weighted battles file and their baseline: gpt-4-0314, or the first model that is in every battle.

    Raises:
        ValueError: if no model is in every battle, so there is no baseline for win rates.
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
    is_turned = (battles.b == baseline) & (battles.a != baseline)
    a, b = np.where(is_turned, battles.b, battles.a), np.where(is_turned, battles.a, battles.b)
    return Battles(battles.question, a, b, np.where(is_turned, 1 - battles.outcome, battles.outcome))


def _battles(rows: Sequence[tuple[str, str, str, float]]) -> Battles:
    question, a, b, outcome = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Battles(np.array(question, object), np.array(a, object), np.array(b, object), np.array(outcome, float))


def _stored_verdict(game: Any, version: Version) -> str | None:
    """A game's verdict as its file stores it, else from the judge's text."""
    if game is None:
        return None
    if not isinstance(game, dict) or not ({"score", "judgment"} & game.keys()):
        raise ValueError("a game is not an object with judgment and score")
    if "score" in game:
        if not isinstance(game["score"], str | None):
            raise ValueError(f"a game's score is {game['score']!r}; expected a label such as A>B, or null")
        return game["score"]
    return (verdict_v01 if version == "v0.1" else verdict_v2)(judgment_field(judge_text(game["judgment"])))


def judge_text(judgment: Any) -> Any:
    """The judge's text: the judgment itself, or in current files its `answer`."""
    return judgment.get("answer") if isinstance(judgment, dict) else judgment
