"""The statistics of an audit against other computations of the same, and against planted values."""

import numpy as np
import pytest
from scipy import stats

from eva_stages.creator.informativeness import reward_gap, reward_mean
from eva_stages.evaluation.audit_statistics import (
    Statistic,
    corrected_intraclass_correlation,
    correlation,
    estimate,
    f_ratio_scale,
    halves,
    intraclass_correlation,
    learnable,
    lift,
    rank_correlation,
    reliability,
    share,
)


def value(statistic: Statistic, units: int) -> float:
    return float(statistic(np.ones((1, units)))[0])


def family_numbers(sizes: list[int]) -> np.ndarray:
    return np.repeat(np.arange(len(sizes)), sizes)


def planted_rewards(family: float, prompt: float, noise: float, n: int, families: int, size: int, seed: int) -> tuple[np.ndarray, ...]:
    """Rewards with the given variances of families, of prompts within families and of responses, and the family of each prompt."""
    rng = np.random.default_rng(seed)
    numbers = np.repeat(np.arange(families), size)
    means = rng.normal(0, family**0.5, families)[numbers] + rng.normal(0, prompt**0.5, len(numbers))
    return means[:, None] + rng.normal(0, noise**0.5, (len(numbers), n)), numbers


def test_intraclass_correlation_is_that_of_the_analysis_of_variance():
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 6, 40).tolist()
    families = family_numbers(sizes)
    values = rng.normal(size=len(families)) + rng.normal(size=40)[families] + 1000
    f_ratio = stats.f_oneway(*(values[families == number] for number in range(40))).statistic
    total = sum(sizes)
    size = (total - sum(k * k for k in sizes) / total) / 39
    assert value(intraclass_correlation(values, families), 40) == pytest.approx((f_ratio - 1) / (f_ratio - 1 + size))


def test_the_interval_of_few_families_is_not_too_low():
    rng, families = np.random.default_rng(7), family_numbers([6] * 16)
    below_count = above_count = 0
    for _ in range(300):
        values = rng.normal(0, 0.1**0.5, 16)[families] + rng.normal(0, 0.9**0.5, len(families))
        result = estimate(intraclass_correlation(values, families), 16, 96, f_ratio_scale(families))
        assert result is not None
        assert result.low <= result.value <= result.high
        below_count, above_count = below_count + (result.high < 0.1), above_count + (result.low > 0.1)
    assert below_count < 0.075 * 300  # the percentile bootstrap has 0.13
    assert above_count < 0.05 * 300


def test_the_scale_of_an_intraclass_correlation_is_the_f_ratio():
    rng = np.random.default_rng(8)
    sizes = rng.integers(1, 6, 20).tolist()
    families = family_numbers(sizes)
    values = rng.normal(size=len(families)) + rng.normal(size=20)[families]
    f_ratio = stats.f_oneway(*(values[families == number] for number in range(20))).statistic
    scale, correlation = f_ratio_scale(families), np.array(value(intraclass_correlation(values, families), 20))
    assert float(scale.forward(correlation)) == pytest.approx(np.log(f_ratio))
    assert float(scale.inverse(scale.forward(correlation))) == pytest.approx(float(correlation))


def test_identical_siblings_have_an_interval():
    families = family_numbers([3] * 20)
    values = np.random.default_rng(9).normal(size=20)[families]
    result = estimate(intraclass_correlation(values, families), 20, 60, f_ratio_scale(families))
    assert result is not None
    assert result.low == pytest.approx(1)


def test_reliability_of_a_mean_is_spearman_browns_with_all_splits():
    rewards, _ = planted_rewards(0.0, 1.0, 2.0, 6, 300, 1, 1)
    splits = halves(6)
    assert len(splits) == 10
    assert all(sorted(first + second) == list(range(6)) for first, second in splits)
    correlations = [np.corrcoef(rewards[:, first].mean(axis=1), rewards[:, second].mean(axis=1))[0, 1] for first, second in splits]
    r = float(np.mean(correlations))
    assert value(reliability(rewards, reward_mean, np.arange(300)), 300) == pytest.approx(2 * r / (1 + r))


def test_halves_of_an_odd_number_are_equal_and_disjoint():
    for n in (4, 5, 7, 12):
        assert all(len(first) == len(second) == n // 2 and not set(first) & set(second) for first, second in halves(n))
    assert halves(3) == []


def test_rank_correlation_is_spearmans():
    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 5, 80).astype(float), rng.normal(size=80)
    assert value(rank_correlation(x[:, None], y[:, None], np.arange(80)), 80) == pytest.approx(stats.spearmanr(x, y).statistic)


@pytest.mark.parametrize("name", ["icc", "correlation", "reliability", "corrected"])
def test_a_resample_gives_what_its_rows_would_give(name: str):
    rewards, families = planted_rewards(0.5, 0.5, 1.0, 4, 20, 3, 3)

    def statistic(rows: np.ndarray, units: np.ndarray) -> Statistic:
        means = rewards[rows].mean(axis=1)
        return {
            "icc": lambda: intraclass_correlation(means, units),
            "correlation": lambda: correlation(means[:, None], rewards[rows][:, :1], units),
            "reliability": lambda: reliability(rewards[rows], reward_mean, units),
            "corrected": lambda: corrected_intraclass_correlation(rewards[rows], reward_mean, units),
        }[name]()

    multiplicities = np.random.default_rng(4).multinomial(20, np.full(20, 1 / 20))
    copies = np.repeat(np.arange(20), multiplicities)
    rows = np.concatenate([np.flatnonzero(families == number) for number in copies])
    resample = statistic(np.arange(60), families)(multiplicities[None].astype(float))[0]
    assert resample == pytest.approx(value(statistic(rows, np.repeat(np.arange(20), 3)), 20))


@pytest.mark.parametrize(
    ("family", "prompt", "noise", "n"), [(0.6, 0.4, 2.0, 6), (0.0, 1.0, 3.0, 6), (0.3, 0.7, 0.5, 5), (0.5, 0.5, 4.0, 16)]
)
def test_planted_reliability_and_heritability_come_back(family: float, prompt: float, noise: float, n: int):
    planted_reliability = (family + prompt) / (family + prompt + noise / n)
    planted_icc = family / (family + prompt)
    hits = []
    for seed in range(10):
        rewards, families = planted_rewards(family, prompt, noise, n, 200, 4, seed)
        figures = [
            (planted_reliability, reliability(rewards, reward_mean, np.arange(800)), 800),
            (planted_icc * planted_reliability, intraclass_correlation(reward_mean(rewards), families), 200),
            (planted_icc, corrected_intraclass_correlation(rewards, reward_mean, families), 200),
        ]
        if seed == 0:
            assert [value(statistic, units) for _, statistic, units in figures] == pytest.approx(
                [figure for figure, *_ in figures], abs=0.12
            )
        intervals = [(planted_value, estimate(statistic, units, units)) for planted_value, statistic, units in figures]
        hits += [interval is not None and interval.low <= planted_value <= interval.high for planted_value, interval in intervals]
    assert np.mean(hits) > 0.8  # 95 % of 30 intervals; 0.8 is four standard errors below


def test_figures_that_are_not_defined_are_left_out():
    flat = np.ones((50, 6))
    assert estimate(reliability(flat, reward_gap, np.arange(50)), 50, 50) is None
    assert estimate(intraclass_correlation(flat[:, 0], np.arange(50) // 2), 25, 50) is None
    rewards = np.random.default_rng(0).normal(size=(50, 6))
    assert estimate(reliability(rewards[:, :3], reward_gap, np.arange(50)), 50, 50) is None  # half of them has no spread
    assert estimate(intraclass_correlation(rewards[:, 0], np.arange(50)), 50, 50) is None  # no siblings
    assert estimate(reliability(rewards[:4], reward_mean, np.arange(4)), 4, 4) is None  # too few prompts


def test_a_wide_set_is_resampled_in_pieces():
    flags = np.arange(5000) % 4 == 0
    result = estimate(share(flags), 5000, 5000)
    assert result is not None
    assert result.value == 0.25
    assert (result.high - result.low) / 2 == pytest.approx(1.96 * (0.25 * 0.75 / 5000) ** 0.5, rel=0.15)


def test_lift_undoes_the_selection_that_gave_the_sample():
    rng = np.random.default_rng(5)
    weights = rng.uniform(0.05, 1, 400)
    children = 0.2 + 0.5 * weights + rng.uniform(0, 0.2, 400)
    target = (weights * children).sum() / weights.sum() / children.mean() - 1
    inclusion = np.minimum(1, weights)
    lifts = []
    for _ in range(200):
        sample = rng.uniform(size=400) < inclusion
        lifts.append(value(lift(children[sample], weights[sample], inclusion[sample]), int(sample.sum())))
    assert np.mean(lifts) == pytest.approx(target, abs=3 * np.std(lifts) / 200**0.5 + 0.005)


def test_learnable_prompts_of_binary_and_of_other_rewards():
    success = np.array([[0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]], dtype=float)
    flags, rule = learnable(success)
    assert flags.tolist() == [False, True, True, False]
    assert "success" in rule
    other_rewards = np.array([[0.5, 0.5, 0.5, 0.5], [0.1, 0.9, 0.2, 0.8], [0.70, 0.71, 0.70, 0.71]])
    flags, rule = learnable(other_rewards)
    assert flags.tolist() == [False, True, False]
    assert "standard error" in rule
