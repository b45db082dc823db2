"""The figures of a study's runs in the benchmark of the deep world."""

import math

import numpy as np
import pytest

from benchmarks.evolutions import learnable_share
from benchmarks.world import study_figures, table
from eva_stages.lettercraft.creator_policy import kind_of_evolution
from eva_stages.lettercraft.language import Instruction


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


def test_a_prompt_is_learnable_if_it_is_solved_sometimes_and_unscored_ones_do_not_count() -> None:
    rewards = np.array([[0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 0, np.nan, 0, 1]])
    assert learnable_share(rewards) == 0.5


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Take abc, reverse it, then sort its letters.", "another operation more"),
        ("Take abc, reverse it, then reverse it.", "one of its operations once more"),
        ("Take xyz, reverse it, then sort its letters.", "another operation more"),
        ("Take abcd, reverse it.", "longer word"),
        ("Take xyz, reverse it.", "another word"),
        ("Take xyz, swap its ends.", "another instruction"),
        ("Take abc, reverse it.", "unchanged"),
        ("Take abc, drop its first letter, then drop its first letter, then drop its first letter.", "contradictory"),
        ("Take abc, reverse it, then spell it backwards in capitals.", "unreadable"),
        ("Take abcdefghijkl, reverse it.", "out of reach"),
    ],
)
def test_an_evolution_is_named_by_what_it_changes(text: str, kind: str) -> None:
    assert kind_of_evolution(Instruction("abc", ("reverse it",)), text) == kind
