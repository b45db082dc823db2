import numpy as np
import pyarrow as pa
import pytest

from eva_stages.evaluation.statistics import estimate_values, holm, paired_bootstrap, question_values


def values(array: np.ndarray, weights: np.ndarray | None = None) -> pa.Table:
    names = [f"q{number}" for number in range(len(array))]
    known_values = {name: None if np.isnan(value) else float(value) for name, value in zip(names, array, strict=True)}
    return question_values(known_values, None if weights is None else dict(zip(names, map(float, weights), strict=True)))


def test_values_have_a_row_per_question_with_weight_0_without_a_judgment() -> None:
    table = question_values({"b": None, "a": 2.0}, {"a": 3.0, "b": 5.0})
    assert table.to_pylist() == [{"question_id": "a", "value": 2.0, "weight": 3.0}, {"question_id": "b", "value": None, "weight": 0.0}]
    assert estimate_values(question_values({"a": None}), 0.95, 0) is None


def test_a_score_is_the_weighted_mean_over_judged_questions() -> None:
    estimate = estimate_values(values(np.array([1.0, 4.0, np.nan]), np.array([3, 1, 9])), 0.95, 0)
    assert estimate is not None and estimate.value == pytest.approx(7 / 4) and estimate.n == 2


def test_the_difference_is_over_shared_questions_and_does_not_depend_on_their_order() -> None:
    a, b = values(np.array([1.0, 2.0, np.nan, 5.0])), values(np.array([2.0, 4.0, 100.0, np.nan]))
    difference = paired_bootstrap(a, b, 0.95, 0)
    assert (difference.value, difference.n, difference.score_a, difference.score_b) == (1.5, 2, 1.5, 3.0)
    assert (difference.low, difference.high, difference.improvement) == (1.0, 2.0, 1.0)
    assert paired_bootstrap(a, b.take(pa.array([3, 1, 0, 2])), 0.95, 0) == difference
    with pytest.raises(ValueError, match="no question has a value on both sides"):
        paired_bootstrap(a, question_values({"other": 1.0}), 0.95, 0)


def test_equal_sides_have_no_difference() -> None:
    a = values(np.random.default_rng(0).normal(size=50))
    difference = paired_bootstrap(a, a, 0.95, 0)
    assert (difference.value, difference.low, difference.high, difference.improvement, difference.p_value) == (0, 0, 0, 0.5, 1.0)


def test_the_same_seed_gives_the_same_result() -> None:
    random = np.random.default_rng(0)
    a, b = values(random.normal(size=40)), values(random.normal(size=40))
    assert paired_bootstrap(a, b, 0.95, 1) == paired_bootstrap(a, b, 0.95, 1) != paired_bootstrap(a, b, 0.95, 2)


def test_the_paired_interval_covers_the_true_difference_and_is_narrower_than_unpaired() -> None:
    random = np.random.default_rng(0)
    hits, rejected, widths = 0, 0, []
    for trial in range(150):
        hardness = random.normal(size=100)
        a, b = (values(hardness + random.normal(scale=0.5, size=100)) for _ in range(2))
        difference = paired_bootstrap(a, b, 0.9, trial)
        hits += difference.low <= 0 <= difference.high
        rejected += difference.p_value < 0.1
        widths.append(difference.high - difference.low)
    assert 0.83 <= hits / 150 <= 0.96 and 0.04 <= rejected / 150 <= 0.17
    own_estimate = estimate_values(a, 0.9, 0)
    assert own_estimate is not None and np.mean(widths) < own_estimate.high - own_estimate.low


def test_games_of_one_question_stay_together() -> None:
    """Ten games each of few questions are worth few questions, not many games."""
    a, b = values(np.zeros(8), np.full(8, 10.0)), values(np.array([1.0, -1, 1, 1, -1, 1, 1, -1]), np.full(8, 10.0))
    difference = paired_bootstrap(a, b, 0.95, 0)
    assert difference.low < 0 < difference.high and difference.p_value > 0.3


def test_holm_is_the_step_down_procedure() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([0.2]) == [0.2] and holm([]) == []
