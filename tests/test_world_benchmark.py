"""The figures of a study's runs in the benchmark of the deep world."""

import math

import pytest

from benchmarks.world import study_figures, table


def test_the_figures_of_a_study_are_differences_over_the_seeds_that_both_arms_have() -> None:
    scores = {"target": [0.6, 0.7], "static": [0.2, 0.2], "oracle": [0.5, 0.4], "uniform": [0.3, 0.3], "eva": [0.35, None]}
    runs = [{"arm": arm, "seed": seed, "score": score} for arm, values in scores.items() for seed, score in enumerate(values)]
    figures = study_figures({"runs": runs})
    assert figures["target - static"] == pytest.approx(0.45) and figures["oracle - uniform"] == pytest.approx(0.15)
    assert figures["oracle - uniform, in standard deviations over seeds"] == pytest.approx(0.15 / 0.0707, rel=1e-3)
    assert figures["arm eva, exact"] == 0.35
    assert figures["eva - uniform, seeds"] == 1 and math.isnan(figures["eva - uniform"])
    is_met = {row[0]: row[3] for row in table({**figures, "target, any of six exact": 0.3}).rows}
    assert is_met["target - static"] == "yes" and is_met["target, any of six exact"] == "NO" and is_met["arm eva, exact"] is None


def test_a_missing_arm_has_no_difference_and_its_limit_is_not_met() -> None:
    figures = study_figures({"runs": [{"arm": "target", "seed": 1, "score": 0.6}, {"arm": "static", "seed": 1, "score": None}]})
    assert {row[0]: row[3] for row in table(figures).rows}["target - static"] == "NO"
