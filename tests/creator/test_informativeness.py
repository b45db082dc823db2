import math
import statistics

import numpy as np
import pyarrow as pa
import pytest

from eva_stages.core.config.function_fields import METRIC
from eva_stages.core.errors import DataError
from eva_stages.core.named_functions import known_functions
from eva_stages.creator.function_calls import metric_values
from eva_stages.creator.informativeness import Informativeness, min_max, spread_at_median, weights
from eva_stages.creator.learnability import learnability

REWARDS = np.array([[1.0, 3.0, 2.0, 0.0], [0.5, 0.5, 0.5, 0.5], [-1.0, 4.0, 4.0, 1.0]])


@pytest.mark.parametrize(
    ("metric", "values"),
    [
        ("reward_gap", [3, 0, 5]),
        ("reward_max_minus_mean", [1.5, 0, 2]),
        ("reward_best_minus_second", [1, 0, 0]),
        ("reward_variance", [1.25, 0, 4.5]),
        ("reward_mean", [1.5, 0.5, 2]),
        ("reward_mean_inverse", [1 - 1 / 1.5, 1, 0]),
        ("reward_gap_inverse", [1 - 3 / 5, 1, 0]),
        ("uniform", [1, 1, 1]),
    ],
)
def test_every_metric_as_the_paper_defines_it(metric: str, values: list[float]) -> None:
    assert metric_values(known_functions(METRIC)[metric], REWARDS) == pytest.approx(values)


def test_min_max_with_a_zero_range_is_all_ones_and_passes_nan_on() -> None:
    assert min_max(np.array([2.0, 2.0])).tolist() == [1, 1]
    assert min_max(np.array([1.0, np.nan, 3.0])) == pytest.approx([0, np.nan, 1], nan_ok=True)
    assert np.isnan(min_max(np.array([np.nan]))).all()
    assert weights(np.array([2.0, np.nan, 2.0])).tolist() == [1, 0, 1]


def test_a_prompt_with_a_missing_reward_has_no_informativeness() -> None:
    table = pa.table({"prompt_id": ["a", "b", "c"], "rewards": pa.array([[0.0, 1.0], [None, 5.0], [0.0, 0.5]])})
    output, counts = Informativeness(name="inform", metric="reward_gap").transform(table)
    assert counts == {"unscored": 1}
    assert output["reward_gap"].to_pylist() == [1.0, None, 0.5] and output["uniform"].to_pylist() == [1.0, None, 1.0]
    assert output["weight"].to_pylist() == [1.0, 0.0, 0.0]
    assert output.column_names == ["prompt_id", *(name for name in METRIC.names if name not in METRIC.on_request), "weight"]


def test_learnability_is_p_times_1_minus_p_and_refuses_other_rewards() -> None:
    rewards = np.array([[0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0], [0.0, 1.0, 0.0, 0.0]])
    assert learnability(rewards) == pytest.approx([0.25, 0, 3 / 16])
    with pytest.raises(DataError, match=r"9 of 12 rewards are others, such as 3; .* or creator\.metric=spread_at_median"):
        metric_values(learnability, REWARDS)


def test_spread_at_median_is_the_spread_weighted_by_the_distance_of_the_mean_from_the_median() -> None:
    means = [sum(row) / 4 for row in REWARDS.tolist()]
    centre, scale = statistics.median(means), statistics.pstdev(means)
    pairs = zip(REWARDS.tolist(), means, strict=True)
    expected = [statistics.pstdev(row) * math.exp(-((mean - centre) ** 2) / (2 * scale**2)) for row, mean in pairs]
    assert spread_at_median(REWARDS) == pytest.approx(expected)
    equal_means = np.array([[0.0, 1.0], [0.5, 0.5]])
    assert spread_at_median(equal_means) == pytest.approx([0.5, 0])


def scored_table(prompt_ids: list[str], rewards: list[list[float | None]]) -> pa.Table:
    return pa.table({"prompt_id": prompt_ids, "rewards": pa.array(rewards, pa.list_(pa.float64()))})


def test_the_posterior_pools_discounted_evidence_as_an_integral_of_it_says() -> None:
    step = Informativeness(name="inform", metric="learnability", discount=0.5)
    first, _ = step.transform(scored_table(["a", "b", "c"], [[0, 1, 1, 1], [0, 0, 0, 0], [None, 1, 1, 1]]))
    second, _ = step.transform(scored_table(["b", "d"], [[0, 0, 1, 0], [1, 1, 1, 1]]), first)
    third, counts = step.transform(
        scored_table(["a", "b", "c", "d"], [[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 0, 1], [1, None, 0, 0]]), first, second
    )
    evidence = [(4 + 3 / 4, 1 / 4), (2 + 1 / 2, 2 + 3 / 2 + 4 / 4), (2, 2)]
    p = np.linspace(0, 1, 200_001)
    for value, (successes, failures) in zip(third["learnability"].to_pylist(), evidence, strict=False):
        density = p**successes * (1 - p) ** failures
        assert value == pytest.approx((density * p * (1 - p)).sum() / density.sum(), rel=1e-6)
    assert third["learnability"].to_pylist()[3] is None and counts == {"unscored": 1}
    assert first["learnability"].to_pylist()[1] == pytest.approx(1 * 5 / (6 * 7))
