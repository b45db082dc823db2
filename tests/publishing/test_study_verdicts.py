"""What a study says of runs with given scores."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from eva_stages.core.study_record import StudyRecord, StudyRun
from eva_stages.publishing.report.study_plots import mean_points
from eva_stages.views.study_document import document_of
from eva_stages.views.study_runs import CurvePoint, RunResult


def document(scores: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """The document of a study in which every run went from 0.1 to its score; the first arm is compared with all others."""
    first, *other_arms = scores
    seeds = tuple(range(len(scores[first])))
    runs = {(arm, seed): StudyRun(arm=arm, seed=seed, folder=f"{arm}/{seed}") for arm in scores for seed in seeds}
    study = StudyRecord(
        name="verdicts",
        question="Which is better?",
        measure="lettercraft.exact",
        seeds=seeds,
        arms={arm: {} for arm in scores},
        contrasts=tuple((first, arm) for arm in other_arms),
        runs=tuple(runs.values()),
    )
    results = [
        RunResult(
            run,
            "done",
            score=scores[arm][seed],
            generated_tokens=1000,
            curve=(CurvePoint("base", 0, 0.1), CurvePoint("iteration 0", 1000, scores[arm][seed])),
            measures=frozenset({"lettercraft.exact"}),
        )
        for (arm, seed), run in runs.items()
    ]
    return document_of(study, results)


def arms(effects: Sequence[float], seeds: int) -> dict[str, list[float]]:
    rng = np.random.default_rng(5)
    return {f"arm{index}": [float(value) for value in rng.normal(0.3 - effect, 0.02, seeds)] for index, effect in enumerate(effects)}


def test_with_five_seeds_and_eight_contrasts_nothing_can_be_significant() -> None:
    study = document(arms([0.0] + [0.2] * 8, 5))
    assert {contrast["verdict"] for contrast in study["contrasts"]} == {"not decidable"}
    assert study["answer"][1] == study["notes"][0]
    assert study["answer"][1] == (
        "Nothing can be significant with 5 seeds and 8 contrasts: the smallest possible p is 0.062, and it must be at most 0.0063 "
        "(0.05 corrected for 8 contrasts). At least 9 seeds are needed."
    )
    assert "significant" not in " ".join(contrast["sentence"] for contrast in study["contrasts"])


def test_ten_seeds_and_eight_contrasts_find_a_large_effect_and_no_other() -> None:
    study = document(arms([0.0, 0.1] + [0.0] * 7, 10))
    assert [contrast["verdict"] for contrast in study["contrasts"]] == ["effect"] + ["no effect found"] * 7
    assert study["contrasts"][0]["p_holm"] == 8 * 2 / 2**10
    assert study["answer"][1] == "Of the 7 other contrasts: no effect found in 7."
    sentence = study["contrasts"][1]["sentence"]
    assert sentence.startswith("No effect found: arm0 scores") and "would have been found with 80 % probability" in sentence


def test_an_effect_is_named_with_its_direction_in_the_summary() -> None:
    study = document(arms([0.0, 0.0, -0.1, 0.0], 10))
    assert study["contrasts"][1]["mean"] < 0
    assert study["answer"][1] == "Of the 2 other contrasts: 1 shows an effect (arm0 0.0941 below arm2); no effect found in 1."
    assert document(arms([0.0, 0.0, -0.1], 10))["answer"][1].startswith("Effect found: arm0 scores 0.0941 less than arm2")


@pytest.mark.parametrize("seeds", [1, 2])
def test_one_or_two_seeds_give_a_sentence(seeds: int) -> None:
    study = document(arms([0.0, 0.1], seeds))
    assert study["contrasts"][0]["p_value"] == [1.0, 0.5][seeds - 1]
    assert f"Not decidable with {'1 seed' if seeds == 1 else '2 seeds'}, at least 6 are needed" in study["answer"][0]


def test_equal_scores_have_the_same_mean() -> None:
    study = document({"a": [0.3] * 10, "b": [0.3] * 10})
    assert study["answer"] == [
        "No effect found: a and b have the same mean score, 0.3000 against 0.3000 (no interval, as all seeds have the same difference, "
        "p 1.00, 10 seeds)."
    ]


def test_a_difference_that_rounds_to_zero_has_no_direction() -> None:
    study = document({"a": [0.3, 0.3, 0.3, 0.3, 0.3, 0.30001], "b": [0.3] * 6})
    assert study["answer"][0].startswith("No effect found: a and b have the same mean score to four decimals, 0.3000 against 0.3000")


def test_the_mean_curve_has_no_point_of_some_seeds_only() -> None:
    points = [{"n": n, "generated_tokens": tokens, "mean": 0.1} for n, tokens in ((3, 0), (3, 900), (3, 1900), (2, 2900))]
    arm = {"curve": points, "done": 3, "runs": 3, "generated_tokens": 1500, "mean": 0.2}
    assert [point["generated_tokens"] for point in mean_points(arm, None)] == [0, 900, 1900]
    assert [point["generated_tokens"] for point in mean_points(arm, 1500)] == [0, 900, 1500]
    assert [point["generated_tokens"] for point in mean_points({**arm, "done": 2}, 1500)] == [0, 900, 1900]


def test_the_control_s_score_is_reached_after_fewer_tokens() -> None:
    study = document({"a": [0.5] * 4 + [0.2] * 2, "b": [0.3] * 6})
    assert study["contrasts"][0]["tokens_to_control"] == {"reached": 4, "median": pytest.approx(500), "control": 1000}
