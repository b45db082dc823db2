"""The majority of final answers as a stand-in for a missing reference, in rewards and in recipes."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from eva_stages.core.failures import split
from eva_stages.core.parts import STATISTICS
from eva_stages.core.prompt_references import VOTERS, source_counts
from eva_stages.core.rows import SCHEMAS
from eva_stages.models.majority import VOTING, MajorityVerifier, majority
from eva_stages.models.rewards import NO_MAJORITY, RewardResponses, VerifierReward


def rows_with(rewards: Any, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    step = RewardResponses(name="reward", reward=rewards)
    step.load()
    return next(step.process([{"messages": [{"role": "user", "content": "Add."}], **row} for row in rows]))


@pytest.mark.parametrize(
    ("responses", "winner"),
    [
        (["#### 4", "The answer is 4.", "#### 5"], "4"),
        ([r"\boxed{\frac{1}{2}}", "0.5", "so 1/2", "2"], r"\frac{1}{2}"),
        (["#### 4", "#### 5"], None),
        (["#### 4", "#### 4", "#### 5", "#### 5", "#### 6"], None),
        (["#### 4", "no idea", None], None),
        (["no idea", "", None], None),
        ([r"\boxed{9^{9^{9}}}", r"\boxed{9^{9^{9}}}", "#### 4"], None),
        ([r"\boxed{9^{9^{9}}}", "#### 4", "#### 4"], "4"),
    ],
)
def test_the_winner_is_given_at_least_twice_and_more_often_than_any_other(responses: Sequence[str | None], winner: str | None) -> None:
    assert majority(responses, VOTING["math"]) == winner


def test_the_vote_equals_a_count_of_equal_numbers() -> None:
    rng = np.random.default_rng(3)
    for _ in range(40):
        numbers = rng.integers(4, size=rng.integers(2, 7)).tolist()
        texts = [rng.choice([f"#### {number}", f"It is {number}.", rf"\boxed{{{number}}}"]) for number in numbers]
        (first, count), *rest = Counter(numbers).most_common()
        is_won = count > 1 and (not rest or rest[0][1] < count)
        assert majority(texts, VOTING["math"]) == (str(first) if is_won else None)


def test_rewards_name_the_source_of_their_reference_and_a_null_has_its_reason() -> None:
    responses = ["#### 4", None, "#### 4", "#### 5"]
    rows = rows_with(
        MajorityVerifier(function="math"),
        {"responses": responses, "reference": "5", "generation": 0},
        {"responses": responses, "reference": "5", "generation": 2},
        {"responses": responses, "reference": None, "generation": 2},
        {"responses": ["#### 4", "#### 5", None, "?"], "reference": " ", "generation": 0},
    )
    assert [row["reference_source"] for row in rows] == ["given", "evolver", "majority", None]
    assert [row["majority_reference"] for row in rows] == [None, None, "4", None]
    assert [row["rewards"] for row in rows] == [[0, None, 0, 1], [0, None, 0, 1], [1, None, 1, 0], [None] * 4]
    assert rows[3]["failures"] == [NO_MAJORITY, NO_MAJORITY, "no response", NO_MAJORITY]
    counts, reasons = split(sum((Counter(row[STATISTICS]) for row in rows), Counter()))
    assert source_counts(counts) == {"given": 1, "evolver": 1, "majority": 1, "missing": 1}
    assert reasons == {"no response": 4, NO_MAJORITY: 3} and not counts.get("failed") and counts["unscored"] == 7
    assert set(SCHEMAS["referenced_rewards"].names) - {"prompt_id"} <= set(rows[0])
    given_rows = [{"responses": responses, "reference": "5", "generation": 0}]
    plain_row, majority_row = (rows_with(kind(function="math"), *given_rows)[0] for kind in (VerifierReward, MajorityVerifier))
    assert plain_row["rewards"] == majority_row["rewards"] and "reference_source" not in plain_row


def test_lettercraft_s_results_vote_as_they_are_written() -> None:
    (row,) = rows_with(MajorityVerifier(function="lettercraft"), {"responses": ["tenalp", " tenalp", "", "lanet"], "reference": None})
    assert (row["majority_reference"], row["rewards"]) == ("tenalp", [1, 1, 0, 0])


def test_every_verifier_that_votes_is_known_to_the_checks() -> None:
    assert set(VOTING) == set(VOTERS)
