import numpy as np
import pyarrow as pa
import pytest

from eva_stages.core.config.function_fields import METRIC
from eva_stages.core.named_functions import known_functions
from eva_stages.creator.function_calls import metric_values
from eva_stages.creator.informativeness import Informativeness, min_max, weights

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
    assert output.column_names == ["prompt_id", *METRIC.names, "weight"]
