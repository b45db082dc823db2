"""Majority vote: the most frequent final answer of a prompt's responses stands in for a missing reference.

A stand-in may be wrong, and agreement is not correctness: rows and counts name the source of every reference. Self-consistency (Wang et al.
2022) votes so over responses; test-time RL (Zuo et al. 2025) trains on the vote.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

from eva_stages.core.failures import CALL_ERRORS
from eva_stages.core.prompt_references import EVOLVER_REFERENCE, GIVEN_REFERENCE, MAJORITY_REFERENCE, MISSING_REFERENCE, PREFIX
from eva_stages.lettercraft.language import final_word
from eva_stages.models.rewards import NO_MAJORITY, NO_RESPONSE, Candidates, VerifierReward
from eva_stages.models.verifiers import answer_text, equal_answers

FEWEST_VOTES = 2


class Voting(NamedTuple):
    """How responses vote with a verifier."""

    answer: Callable[[str], str | None]
    """The final answer of a response, as a reference for the verifier."""
    are_equal: Callable[[str, str], bool]


VOTING = {"math": Voting(answer_text, equal_answers), "lettercraft": Voting(lambda text: final_word(text) or None, str.__eq__)}
"""The verifiers whose final answers can be compared."""


def majority(responses: Sequence[str | None], voting: Voting) -> str | None:
    """The final answer that at least two responses give, and more than give any other; None if there is none, or a tie."""
    votes: dict[str, int] = {}
    for response in responses:
        answer = None if response is None else _call(voting.answer, response)
        if answer is not None:
            equals = (text for text in votes if text == answer or _call(voting.are_equal, text, answer))
            first_answer = next(equals, answer)
            votes[first_answer] = votes.get(first_answer, 0) + 1
    top_count = max(votes.values(), default=0)
    winners = [answer for answer, count in votes.items() if count == top_count]
    return winners[0] if top_count >= FEWEST_VOTES and len(winners) == 1 else None


def _call(function: Callable[..., Any], *arguments: str) -> Any:
    """What a function returns; None where an answer cannot be read or compared, so that it has no vote of others."""
    try:
        return function(*arguments)
    except CALL_ERRORS:
        return None


class MajorityVerifier(VerifierReward):
    """A verifier that takes the majority of a prompt's responses as reference where the prompt has none."""

    columns: ClassVar[tuple[str, ...]] = (*VerifierReward.columns, "reference_source", "majority_reference")

    def score_rows(self, rows: Sequence[Candidates]) -> list[dict[str, Any]]:
        voting = VOTING[str(self.function)]
        answers = [None if _has_reference(row) else majority(row.responses, voting) for row in rows]
        checked_rows = [row if answer is None else row._replace(reference=answer) for row, answer in zip(rows, answers, strict=True)]
        column_dicts = super().score_rows(checked_rows)
        for row, answer, columns in zip(rows, answers, column_dicts, strict=True):
            source = _source(row, answer)
            if source == MISSING_REFERENCE:
                columns["failures"] = [NO_RESPONSE if text is None else NO_MAJORITY for text in row.responses]
            columns |= {"reference_source": None if source == MISSING_REFERENCE else source, "majority_reference": answer}
            columns["statistics"] = {**columns["statistics"], PREFIX + source: 1}
        return column_dicts


def _has_reference(row: Candidates) -> bool:
    return bool(row.reference and row.reference.strip())


def _source(row: Candidates, answer: str | None) -> str:
    if _has_reference(row):
        return EVOLVER_REFERENCE if row.is_evolved else GIVEN_REFERENCE
    return MISSING_REFERENCE if answer is None else MAJORITY_REFERENCE
