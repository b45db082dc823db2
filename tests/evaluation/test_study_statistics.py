"""The statistics of a study, on small numbers by hand, against scipy, and on synthetic studies through the benchmark's functions."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from benchmarks.study_statistics import CONTRASTS, NOISES, coverage, false_positives, library_agreement, power
from eva_stages.evaluation.study_statistics import (
    RANDOM_PATTERNS,
    detectable_effect,
    paired_effect,
    seeds_needed,
    sign_flip_interval,
    sign_flip_p,
    smallest_p,
    t_detectable_effect,
)


@pytest.mark.parametrize("differences", [[0.1, 0.2, 0.3, -0.1], [0.1, 0.2, -0.3], [0.0, 0.0, 0.1], [-0.4] * 5, [0.2], [0.0, 0.0]])
def test_the_p_value_counts_all_sign_patterns(differences: list[float]) -> None:
    d = np.array(differences)
    totals = [abs(float(np.dot(signs, d))) for signs in product((1, -1), repeat=len(d))]
    assert sign_flip_p(d) == pytest.approx(np.mean([total >= abs(d.sum()) - 1e-12 for total in totals]))


def test_above_12_seeds_the_p_value_is_a_monte_carlo_estimate() -> None:
    d = np.random.default_rng(1).normal(0.5, 1, 16)
    exact_p = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert sign_flip_p(d) == pytest.approx(exact_p, abs=4 * np.sqrt(exact_p / RANDOM_PATTERNS))
    assert sign_flip_p(d) == sign_flip_p(d)
    assert sign_flip_p(np.ones(40)) == 1 / (RANDOM_PATTERNS + 1)


@pytest.mark.parametrize("seeds", [6, 9, 15])
def test_the_interval_excludes_zero_where_the_test_is_significant(seeds: int) -> None:
    rng = np.random.default_rng(2)
    for effect in rng.uniform(0, 1.2, 60):
        d = rng.normal(effect, 1, seeds)
        interval = sign_flip_interval(d, 0.95)
        assert interval is not None
        assert (interval[0] > 0 or interval[1] < 0) == (sign_flip_p(d) <= 0.05)
        assert sign_flip_p(d - interval[0]) > 0.05 and sign_flip_p(d - interval[1]) > 0.05


def test_few_seeds_cannot_be_significant() -> None:
    assert smallest_p(1) == 1 and smallest_p(5) == 2 / 2**5
    differences = np.random.default_rng(0).uniform(0.5, 1.5, 13)  # all positive; of 19,999 random patterns some flip no sign or all signs
    assert 1 / 20_000 < smallest_p(13) == sign_flip_p(differences) < 4 * 2 / 2**13
    assert sign_flip_p(np.array([1.0, 1.1, 1.2, 1.3, 1.4])) == smallest_p(5)
    assert seeds_needed(8) == 9 and smallest_p(9) <= 0.05 / 8 < smallest_p(8)
    assert seeds_needed(1) == 6 and seeds_needed(5) == 8
    assert sign_flip_interval(np.arange(5.0), 0.95) is None
    assert detectable_effect(5, 0.05) is None and detectable_effect(10, 0.05 / 100) is None
    effect = paired_effect([0.1, 0.2, 0.3], 1)
    assert effect.interval_kind == "t"
    assert effect.interval == pytest.approx(stats.t.interval(0.95, 2, 0.2, 0.1 / np.sqrt(3)))


@pytest.mark.parametrize("differences", [[0.1] * 10, [0.0] * 10, [0.3]])
def test_equal_differences_give_no_interval(differences: list[float]) -> None:
    effect = paired_effect(differences, 1)
    assert (effect.interval, effect.bca, effect.effect_size, effect.detectable_effect) == (None, None, None, None)
    assert effect.mean == pytest.approx(differences[0])
    assert effect.p_value == (2 / 2**10 if differences[0] == 0.1 else 1.0)


def test_a_single_outlier_and_ties_give_finite_figures() -> None:
    effect = paired_effect([0.0] * 9 + [0.1], 8)
    assert effect.p_value == 1.0
    assert effect.interval is not None and effect.interval[0] <= 0.0 <= effect.interval[1]


def test_the_detectable_effect_is_that_of_the_t_test_where_there_are_enough_seeds() -> None:
    assert detectable_effect(10, 0.05) == pytest.approx(t_detectable_effect(10, 0.05), rel=0.03)
    assert detectable_effect(20, 0.05) == t_detectable_effect(20, 0.05)
    few_seeds = detectable_effect(6, 0.05)
    assert few_seeds is not None and few_seeds > 1.15 * t_detectable_effect(6, 0.05)


def test_synthetic_studies_give_what_the_statistics_promise() -> None:
    """The benchmark with 2,000 studies checks the same within three standard errors."""
    rng = np.random.default_rng(3)
    checks = [*library_agreement(40, rng), *false_positives("normal", 250, rng), *false_positives("discrete (200 questions)", 250, rng)]
    checks += [*power(10, CONTRASTS, 300, rng), *power(10, 1, 300, rng)]
    for noise in NOISES:
        draws = (0.03 + NOISES[noise](rng, (60, 10)) - NOISES[noise](rng, (60, 10))).tolist()
        checks += coverage(noise, lambda _, draws=draws: np.array(draws.pop()), 0.03, 60, rng, is_claim=True)
    assert [check for check in checks if not check.is_met] == []
