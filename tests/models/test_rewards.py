"""Rewards that need no weights: verifiers, judges, ensembles."""

import numpy as np
import pyarrow as pa
import pytest
from distilabel.pipeline import Pipeline

from eva_stages.core.errors import DataError
from eva_stages.models.ensemble import CombineRewards, combine_rewards, standardise
from eva_stages.models.lettercraft_rewards import LettercraftNoisyReward, lettercraft
from eva_stages.models.litellm_generator import LiteLLMGenerator
from eva_stages.models.pairwise import LettercraftJudgeReward
from eva_stages.models.rewards import Candidates, Conversation, LLMJudgeReward, VerifierReward, read_rating
from tests.conftest import function_code
from tests.fault_server import chat_server


def length_of(messages: list[dict[str, str]], response: str, reference: str | None) -> float | None:
    if reference is None:
        raise ValueError("no reference")
    return None if response == "?" else float("nan") if response == "nan" else len(response) / len(reference)


def row(*responses: str | None, reference: str | None = "four") -> Candidates:
    return Candidates([{"role": "user", "content": "Count."}], list(responses), reference)


def test_a_verifier_gets_the_reference_and_every_failure_has_its_reason() -> None:
    reward = VerifierReward(function=function_code(__file__, "length_of"))
    reward.load()
    first, second = reward.score_rows([row("ab", None, "?", "nan"), row("ab", reference=None)])
    assert first["rewards"] == [0.5, None, None, None] and second["rewards"] == [None]
    assert first["failures"] == [None, "no response", "the function returned None; expected a number", "the reward is nan"]
    assert second["failures"] == ["ValueError: no reference"]


def test_lettercraft_s_verifier_checks_the_result_against_the_reference_that_the_row_has() -> None:
    messages = [{"role": "user", "content": "Take planet, reverse it."}]
    assert lettercraft(messages, "planet, reverse it, tenalp", "tenalp") == 1.0
    assert lettercraft(messages, "planet, reverse it, tenalp", "planet") == 0.0
    assert lettercraft(messages, "planet, reverse it, planet", "planet") == 1.0
    assert lettercraft(messages, "tenalp", " tenalp\n") == 1.0
    for reference in (None, "", " \n"):
        with pytest.raises(ValueError, match="no reference"):
            lettercraft(messages, "tenalp", reference)


@pytest.mark.parametrize(
    ("reply", "rating"),
    [("Good. [[7]]", 7.0), ("[[3]] no, [[4.5]]", 4.5), ("7/10", None), ("[[0]]", None), ("[[11]]", None), ("", None), (None, None)],
)
def test_a_rating_is_the_last_one_between_1_and_10(reply: str | None, rating: float | None) -> None:
    assert read_rating(reply) == rating


def test_a_judge_without_a_rating_leaves_null_and_the_conversation_reaches_it() -> None:
    with chat_server() as server:
        llm = LiteLLMGenerator(model="openai/judge", api_base=server.base, price={"input": 1.0, "output": 1.0})
        reward = LLMJudgeReward(llm=llm, rubric="wit")
        reward.load()
        (columns,) = reward.score_rows([row("rate this [[9]]", "plain", None)])
    assert len(server.requests) == 2 and all("Weigh wit" in request["messages"][0]["content"] for request in server.requests)
    assert columns["rewards"][0] == 9.0 and columns["failures"][2] == "no response"
    assert columns["statistics"]["output_tokens"] == 10 and columns["statistics"]["cost_usd"] == pytest.approx(30e-6)


def table(*rewards: list[float | None]) -> pa.Table:
    failures = [[None if value is not None else "broken" for value in row] for row in rewards]
    ids = [str(index) for index in range(len(rewards))]
    return pa.table(
        {"prompt_id": ids, "rewards": pa.array(rewards, pa.list_(pa.float64())), "failures": pa.array(failures, pa.list_(pa.string()))}
    )


def test_an_ensemble_is_the_weighted_mean_of_standardised_members() -> None:
    with Pipeline(name="ensemble"):
        step = CombineRewards(weights=[3.0, 1.0])
    table_of_rewards, counts = step.transform(table([0.0, 2.0], [0.0, 2.0]), table([100.0, None], [300.0, 100.0]))
    assert table_of_rewards["rewards"].to_pylist()[1] == pytest.approx([(-3 + 2**0.5) / 4, (3 - 0.5**0.5) / 4])
    assert table_of_rewards["rewards"].to_pylist()[0][1] is None and table_of_rewards["failures"].to_pylist() == [
        [None, "broken"],
        [None, None],
    ]
    assert table_of_rewards["members"].to_pylist()[1][0] == pytest.approx([-1.0, 2**0.5])
    assert counts == {"responses": 4, "unscored": 1}


def test_the_worst_case_is_the_lowest_member() -> None:
    members = np.array([[[1.0, -1.0]], [[0.5, 2.0]]])
    assert combine_rewards(members, np.ones(2), "worst").tolist() == [[0.5, -1.0]]


def test_a_member_that_always_says_the_same_says_nothing() -> None:
    assert standardise(np.full((2, 3), 7.0)).tolist() == [[0.0] * 3] * 2


def test_members_that_scored_other_prompts_are_refused() -> None:
    with Pipeline(name="ensemble"):
        step = CombineRewards(weights=[1.0, 1.0])
    with pytest.raises(DataError, match="same prompts"):
        step.transform(table([1.0, 2.0]), table([1.0, 2.0], [1.0, 2.0]))


def test_the_lettercraft_judge_compares_exactly_and_ties_are_a_half() -> None:
    messages = [{"role": "user", "content": "Take planet, reverse it."}]
    answers = ["tenalp", "tenalx", "x", "y", None]  # right, nearly, two that are equally wrong, one that is not there
    lettercraft_row, foreign_row = LettercraftJudgeReward().score_rows(
        [Candidates(messages, answers), Candidates([{"role": "user", "content": "Sing."}], ["a", "b"])]
    )
    assert lettercraft_row["win_matrix"][0][:4] == [0.5, 1.0, 1.0, 1.0] and lettercraft_row["win_matrix"][3][:4] == [0.0, 0.0, 0.5, 0.5]
    assert lettercraft_row["rewards"] == lettercraft_row["win_probability"] == [3.5 / 4, 2.5 / 4, 1 / 4, 1 / 4, None]
    assert lettercraft_row["failures"] == [None, None, None, None, "no response"]
    assert foreign_row["rewards"] == [None, None] and foreign_row["failures"] == ["not a Lettercraft instruction"] * 2


def test_a_noisy_reward_is_wrong_for_its_share_of_the_responses_and_always_for_the_same_ones() -> None:
    rewards, words = LettercraftNoisyReward(errors=0.2), [f"w{number}" for number in range(1000)]
    conversations = [Conversation([{"role": "user", "content": "Take abc, reverse it."}], response, None) for response in ("cba", *words)]
    scores = [score.value for score in rewards.score(conversations)]
    assert set(scores) == {0.0, 1.0} and 150 < sum(scores[1:]) < 250, "no word is right"
    assert [score.value for score in rewards.score(conversations[::-1])] == scores[::-1]
    assert sum(score.value for score in LettercraftNoisyReward(errors=0.4).score(conversations[1:])) > 1.5 * sum(scores[1:])
