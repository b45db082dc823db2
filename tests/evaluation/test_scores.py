import numpy as np
import pyarrow as pa
import pytest

from eva_stages.core.tables import per_prompt_mean
from eva_stages.core.verdicts import LABELS, outcome_of_label, outcome_of_preference, outcome_of_rating, preference_of_outcome
from eva_stages.evaluation.lettercraft import exact_shares, win_rate
from eva_stages.evaluation.pair_judging import TEMPLATE, JudgePairs, read_verdict
from eva_stages.evaluation.statistics import clustered_bootstrap
from eva_stages.lettercraft.player import LettercraftLLM


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("My final verdict is: [[A>>B]]", "A>>B"),
        ("[[A=B]] ... so [[A=B]]", "A=B"),
        ("[[A>B]] no, [[B>A]]", None),
        ("[[A<B]]", None),
        ("[[A>>A]]", None),
        ("[[a>b]]", None),
        ("A>B", None),
        ("", None),
        (None, None),
    ],
)
def test_a_verdict_is_read_or_null(text: str | None, verdict: str | None) -> None:
    assert read_verdict(text) == verdict


def test_the_model_is_b_in_game_0_and_a_in_game_1() -> None:
    assert [outcome_of_label(label, 1, "v0.1") for label in LABELS["v0.1"]] == [1, 1, 0.5, 0, 0]
    assert [outcome_of_label(label, 0, "v0.1") for label in LABELS["v0.1"]] == [0, 0, 0.5, 1, 1]
    assert outcome_of_label(None, 0, "v0.1") is None


def test_both_orders_are_judged_and_a_missing_response_is_not_judged() -> None:
    row = {"prompt_id": "1", "messages": [{"role": "user", "content": "Take abc, reverse it."}]}
    row |= {"responses": ["cba"], "baseline_responses": ["abc"], "generator": "m", "baseline_generator": "base"}
    step = JudgePairs(name="judge", llm=LettercraftLLM())
    step.load()
    games = next(step.process([row]))
    assert [(game["game"], game["verdict"], game["outcome"]) for game in games] == [(0, "B>>A", 1.0), (1, "A>>B", 1.0)]
    assert {game["question_id"] for game in games} == {"1"} and games[0]["baseline"] == "base"
    assert TEMPLATE.split("{")[0] in games[0]["prompt"]
    missing = next(step.process([row | {"baseline_responses": [None]}]))
    assert [(game["verdict"], game["outcome"], bool(game["failure"])) for game in missing] == [(None, None, True)] * 2


def test_a_missing_verdict_does_not_count() -> None:
    table = pa.table({"question_id": ["1", "1", "2", "2", "3", "3"], "outcome": [1.0, None, 0.5, 0.5, None, None]})
    estimate = win_rate(table, 0.95, 0)
    assert estimate.value == pytest.approx((1.0 + 0.5) / 2) and estimate.n == 2


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        estimate = clustered_bootstrap(rng.normal(0.3, 1, size=80), 0.9, trial)
        hits += estimate.low <= 0.3 <= estimate.high
    assert 0.84 <= hits / 200 <= 0.95


def test_unknown_values_are_left_out_and_all_unknown_is_an_error() -> None:
    assert clustered_bootstrap(np.array([1.0, np.nan, 3.0]), 0.95, 0).value == 2
    with pytest.raises(ValueError, match="no prompt has a value"):
        clustered_bootstrap(np.array([np.nan]), 0.95, 0)


def test_a_prompts_mean_is_over_its_known_rewards() -> None:
    table = pa.table({"rewards": pa.array([[1.0, None], [None, None], [0.0, 1.0]])})
    assert per_prompt_mean(table, "rewards") == pytest.approx([1, np.nan, 0.5], nan_ok=True)


def test_the_outcome_is_one_number_for_every_kind_of_judgment() -> None:
    assert [outcome_of_rating(rating) for rating in (1, 5.5, 10, None)] == [0, 0.5, 1, None]
    preferences = [1.0, 1.1, 1.37, 1.5, 1.9999999, 2.0, None]
    assert [preference_of_outcome(outcome_of_preference(preference)) for preference in preferences] == preferences


def test_only_responses_with_the_highest_grade_are_exact() -> None:
    grades = np.array([[1.0, 0.9, 0.0, np.nan], [1.0, 1.0, 1.0, 1.0], [np.nan] * 4])
    assert exact_shares(grades).tolist()[:2] == [pytest.approx(1 / 3), 1.0] and np.isnan(exact_shares(grades)[2])
