"""Are the statistics of a study right? Synthetic studies with known effects, through the functions that real studies use.

    python -m benchmarks.study_statistics                 2,000 studies per row
    python -m benchmarks.study_statistics --studies 200

1. False positives: 8 contrasts, 10 seeds, no effect: of single contrasts at 5 %, and of any contrast after Holm's correction.
2. Power: effects as large as the stated minimum detectable effect, which 80 % of the studies should find.
3. Coverage of the 95 % intervals: share of the studies whose interval contains the effect. Of the sign-flip interval, which is reported,
   and of BCa, Student's t and bootstrap-t, which could be. Where an arm adds the same to every seed, noise of any shape leaves the
   differences symmetric around the effect; "effect varies" are differences that are skewed themselves, which no interval handles well.
4. Agreement with scipy's functions and with the formula of statsmodels' TTestPower.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from scipy import stats

from eva_stages.evaluation.statistics import holm
from eva_stages.evaluation.study_statistics import (
    CONFIDENCE,
    LEVEL,
    bca_interval,
    detectable_effect,
    sign_flip_interval,
    sign_flip_p,
    t_detectable_effect,
    t_interval,
)

CONTRASTS, SEEDS, ROUNDS = 8, 10, 1000
NOISES: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "normal": lambda rng, shape: rng.normal(0, 0.02, shape),
    "skewed (log-normal)": lambda rng, shape: 0.02 * rng.lognormal(0, 1, shape),
    "skewed (exponential)": lambda rng, shape: rng.exponential(0.02, shape),
    "discrete (200 questions)": lambda rng, shape: rng.binomial(200, 0.3, shape) / 200,
}
VARYING_EFFECTS: dict[str, tuple[Callable[[np.random.Generator, int], np.ndarray], float]] = {
    "effect varies (gamma 4)": (lambda rng, n: rng.gamma(4, 1, n), 4.0),
    "effect varies (exponential)": (lambda rng, n: rng.exponential(1, n), 1.0),
}
Interval = tuple[float, float]


class Check(NamedTuple):
    """One row of the printed table."""

    claim: str
    setting: str
    figure: float
    accepted_range: tuple[float, float] | None = None

    @property
    def is_met(self) -> bool:
        return self.accepted_range is None or self.accepted_range[0] <= self.figure <= self.accepted_range[1]


def tolerance(share: float, studies: int) -> float:
    """Three standard errors of a share."""
    return 3 * math.sqrt(share * (1 - share) / studies)


def arm_scores(noise: str, effect: float, arms: int, rng: np.random.Generator, seeds: int = SEEDS) -> np.ndarray:
    """Scores, shape (arms, seeds): noise of each run, a part that the arms of a seed share, and the effect for the first arm."""
    scores = 0.3 + NOISES[noise](rng, (1, seeds)) + NOISES[noise](rng, (arms, seeds))
    scores[0] += effect
    return scores


def false_positives(noise: str, studies: int, rng: np.random.Generator) -> Iterator[Check]:
    single_count = family_count = 0
    for _ in range(studies):
        scores = arm_scores(noise, 0.0, CONTRASTS + 1, rng)
        p_values = [sign_flip_p(scores[0] - scores[arm]) for arm in range(1, CONTRASTS + 1)]
        single_count += p_values[0] <= LEVEL
        family_count += min(holm(p_values)) <= LEVEL
    upper = LEVEL + tolerance(LEVEL, studies)
    yield Check("false positives at 5 %, one contrast", noise, single_count / studies, (LEVEL - tolerance(LEVEL, studies), upper))
    yield Check(f"false positives at 5 %, any of {CONTRASTS}", noise, family_count / studies, (0.0, upper))


def power(seeds: int, contrasts: int, studies: int, rng: np.random.Generator) -> Iterator[Check]:
    """How often an effect of the stated size is found, if all other contrasts have none."""
    effect = detectable_effect(seeds, LEVEL / contrasts)
    assert effect is not None
    known_count = estimated_count = 0
    for _ in range(studies):
        d = rng.standard_normal(seeds)
        known_count += sign_flip_p(d + effect) <= LEVEL / contrasts
        estimated_effect = effect * rng.standard_normal(seeds).std(ddof=1)
        estimated_count += sign_flip_p(d + estimated_effect) <= LEVEL / contrasts
    setting = f"{seeds} seeds, {contrasts} contrast{'s' if contrasts > 1 else ''}"
    half = tolerance(0.8, studies) + 0.02
    yield Check("power at the stated effect", setting, known_count / studies, (0.8 - half, 0.8 + half))
    yield Check("the same, sd estimated in another study", setting, estimated_count / studies)


def coverage(
    setting: str, draw: Callable[[np.random.Generator], np.ndarray], effect: float, studies: int, rng: np.random.Generator, is_claim: bool
) -> Iterator[Check]:
    methods: dict[str, Callable[[np.ndarray], Interval | None]] = {
        "sign-flip": lambda d: sign_flip_interval(d, CONFIDENCE),
        "BCa": lambda d: bca_interval(d, CONFIDENCE),
        "t": lambda d: t_interval(d, CONFIDENCE),
        "bootstrap-t": lambda d: bootstrap_t(d, rng),
    }
    counts = dict.fromkeys(methods, 0)
    for _ in range(studies):
        d = draw(rng)
        for name, method in methods.items():
            interval = method(d)
            counts[name] += interval is not None and interval[0] - 1e-12 <= effect <= interval[1] + 1e-12
    half = tolerance(0.95, studies)
    for name, count in counts.items():
        claim = (0.93 - half, 0.97 + half) if is_claim and name == "sign-flip" else None
        yield Check(f"coverage of the 95 % interval: {name}", setting, count / studies, claim)


def bootstrap_t(d: np.ndarray, rng: np.random.Generator) -> Interval | None:
    """The bootstrap-t interval [Efron 1982], for comparison."""
    samples = d[rng.integers(len(d), size=(ROUNDS, len(d)))]
    deviations = samples.std(axis=1, ddof=1)
    if not deviations.any():
        return None
    usable = deviations > 0
    ratios = (samples[usable].mean(axis=1) - d.mean()) / deviations[usable]
    low, high = np.quantile(ratios, [LEVEL / 2, 1 - LEVEL / 2])
    return float(d.mean() - high * d.std(ddof=1)), float(d.mean() - low * d.std(ddof=1))


def library_agreement(samples: int, rng: np.random.Generator) -> Iterator[Check]:
    """The largest difference to scipy's sign-flip test, and to the formula of statsmodels' TTestPower (noncentral t, both sides)."""
    largest = 0.0
    for _ in range(samples):
        d = rng.normal(0.5, 1, rng.integers(2, 11))
        p = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
        largest = max(largest, abs(p - sign_flip_p(d)))
    yield Check("largest |p - p of scipy.stats.permutation_test|", f"{samples} samples, 2 to 10 seeds", largest, (0.0, 1e-12))
    largest = 0.0
    for seeds in (6, 10, 20, 30):
        effect, critical_t = t_detectable_effect(seeds, LEVEL), stats.t.ppf(1 - LEVEL / 2, seeds - 1)
        shift = effect * math.sqrt(seeds)
        both_sides = stats.nct.sf(critical_t, seeds - 1, shift) + stats.nct.cdf(-critical_t, seeds - 1, shift)
        largest = max(largest, abs(both_sides - 0.8))
    yield Check("largest |power of TTestPower - 0.8| at the t effect", "6 to 30 seeds", largest, (0.0, 1e-3))
    p_values = rng.uniform(0, 0.1, CONTRASTS)
    by_hand = [
        max((CONTRASTS - place) * np.sort(p_values)[place] for place in range(rank + 1))
        for rank in stats.rankdata(p_values).astype(int) - 1
    ]
    largest = float(np.abs(np.minimum(by_hand, 1) - holm(list(p_values))).max())
    yield Check("largest |p of Holm - its definition|", f"{CONTRASTS} contrasts", largest, (0.0, 1e-12))


def checks(studies: int) -> Iterator[Check]:
    rng = np.random.default_rng(2026)
    yield from library_agreement(min(studies, 300), rng)
    for noise in NOISES:
        yield from false_positives(noise, studies, rng)
    for seeds, contrasts in ((6, 1), (10, 1), (10, 3), (10, CONTRASTS), (12, CONTRASTS), (20, CONTRASTS)):
        yield from power(seeds, contrasts, studies, rng)
    for seeds in (6, 10, 20):
        for noise in NOISES:

            def paired_differences(rng: np.random.Generator, noise: str = noise, seeds: int = seeds) -> np.ndarray:
                scores = arm_scores(noise, 0.03, 2, rng, seeds)
                return scores[0] - scores[1]

            yield from coverage(f"{noise}, {seeds} seeds", paired_differences, 0.03, studies, rng, is_claim=True)
    for name, (draw, effect) in VARYING_EFFECTS.items():
        yield from coverage(f"{name}, {SEEDS} seeds", lambda rng, draw=draw: draw(rng, SEEDS), effect, studies, rng, is_claim=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000)
    arguments = parser.parse_args()
    failures = 0
    for check in checks(arguments.studies):
        accepted_text = "" if check.accepted_range is None else f"{check.accepted_range[0]:.3f} to {check.accepted_range[1]:.3f}"
        note = "" if check.accepted_range is None else "yes" if check.is_met else "NO"
        print(f"{check.claim:52}  {check.setting:38}  {check.figure:8.4g}  {accepted_text:16}  {note}", flush=True)
        failures += not check.is_met
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()
