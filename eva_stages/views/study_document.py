"""The document of a study, from its folder alone: `study.json` and the runs. Every table, file and report of a study is built from it.

It has no time of rendering, so the same runs give the same document. What depends on the machine is in the fields `hours` and `gpu_hours`
of `cost`; `without_times` leaves them out. Runs that are missing or failed stay in it with their state, and a contrast is decided only if
both arms are complete for every seed of the study.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eva_stages.core.errors import ConfigError
from eva_stages.core.study_record import Budget, StudyRecord, read_study
from eva_stages.evaluation.statistics import holm
from eva_stages.evaluation.study_statistics import (
    CONFIDENCE,
    EXACT_SEEDS,
    LEVEL,
    RANDOM_PATTERNS,
    PairedEffect,
    paired_effect,
    t_interval,
)
from eva_stages.views.study_audit import study_audit
from eva_stages.views.study_runs import DONE_STATE, CurvePoint, RunResult, lacks_sampled_tokens, read_runs, summed_cost, tokens_to_reach
from eva_stages.views.study_sentences import (
    EFFECT_VERDICT,
    NO_EFFECT_VERDICT,
    UNDECIDABLE_VERDICT,
    UNDECIDED_VERDICT,
    answer,
    contrast_sentence,
    is_decidable,
    power_limit,
)

TIME_FIELDS = ("hours", "gpu_hours")
INTERVAL_NOTES = {
    "sign-flip": "intervals: 95 %, the effects that the sign-flip test does not reject; not corrected for the number of contrasts",
    "t": "intervals: 95 %, Student's t, as the sign-flip test has no 95 % interval with fewer than 6 seeds",
}


def study_document(folder: Path) -> dict[str, Any]:
    """The document of the study in a folder.

    Raises:
        DamagedError: if `study.json` cannot be read.
        ConfigError: if complete runs have scores, but none of the study's measure.
    """
    study = read_study(folder)
    return document_of(study, read_runs(folder, study))


def document_of(study: StudyRecord, runs: Sequence[RunResult]) -> dict[str, Any]:
    """The document of a study whose runs have been read; see `study_document`."""
    _check_measure(study, runs)
    by_arm = {arm: [result for result in runs if result.run.arm == arm] for arm in study.arms}
    document: dict[str, Any] = {
        "study": study.name,
        "question": study.question,
        "paper": study.paper,
        "base": study.base,
        "set": dict(study.set),
        "measure": study.measure,
        "budget": study.budget.model_dump(exclude_none=True),
        "seeds": list(study.seeds),
        "command": study.command,
        "arms": [_arm_entry(arm, study.arms[arm], by_arm[arm]) for arm in study.arms],
        "contrasts": _contrasts(study, by_arm),
        "runs": [_run_entry(result) for result in runs],
        "audit": study_audit(study.arms, runs),
        "cost": summed_cost(runs),
    }
    return {**document, "answer": answer(document), "notes": _notes(study, document, by_arm)}


def without_times(document: Any) -> Any:
    """A copy of a document, or of a part of it, without the fields that differ between two runs of the same study."""
    if isinstance(document, dict):
        return {name: without_times(value) for name, value in document.items() if name not in TIME_FIELDS}
    return [without_times(entry) for entry in document] if isinstance(document, list) else document


def _check_measure(study: StudyRecord, runs: Sequence[RunResult]) -> None:
    complete_runs = [result for result in runs if result.history and len(result.history.artifacts) == len(result.history.stages)]
    known_measures = {measure for result in complete_runs for measure in result.measures}
    if known_measures and study.measure not in known_measures:
        names = ", ".join(sorted(known_measures))
        raise ConfigError([f"measure is {study.measure!r}, which no run of the study has; the runs have {names}"])


def _run_entry(result: RunResult) -> dict[str, Any]:
    return {
        "arm": result.run.arm,
        "seed": result.run.seed,
        "folder": result.run.folder,
        "state": result.state,
        "cause": result.cause,
        "score": result.score,
        "generated_tokens": result.generated_tokens,
        "curve": [{"policy": point.policy, "generated_tokens": point.generated_tokens, "score": point.score} for point in result.curve],
        "cost": summed_cost([result]),
    }


def _arm_entry(arm: str, overrides: Mapping[str, Any], runs: Sequence[RunResult]) -> dict[str, Any]:
    scores = [result.score for result in runs if result.score is not None]
    return {
        "arm": arm,
        "overrides": dict(overrides),
        "runs": len(runs),
        "done": len(scores),
        **_mean_figures(scores),
        "generated_tokens": _mean([result.generated_tokens for result in runs if result.generated_tokens is not None]),
        "curve": _mean_curve(runs),
        "cost": summed_cost(runs),
    }


def _mean_figures(values: Sequence[float]) -> dict[str, float | None]:
    """Mean, standard deviation and Student's 95 % interval over seeds."""
    d = np.asarray(values, dtype=float)
    low, high = t_interval(d, CONFIDENCE) if len(d) > 1 and np.ptp(d) > 0 else (None, None)
    return {"mean": _mean(values), "sd": float(d.std(ddof=1)) if len(d) > 1 else None, "low": low, "high": high}


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _mean_curve(runs: Sequence[RunResult]) -> list[dict[str, Any]]:
    """For each policy, mean tokens and mean score over the seeds that have it."""
    points: dict[str, list[CurvePoint]] = {}
    for result in runs:
        for point in result.curve:
            points.setdefault(point.policy, []).append(point)
    return [
        {
            "policy": policy,
            "n": len(points_of_policy),
            "generated_tokens": _mean([point.generated_tokens for point in points_of_policy]),
            **_mean_figures([point.score for point in points_of_policy]),
        }
        for policy, points_of_policy in points.items()
    ]


def _contrasts(study: StudyRecord, by_arm: Mapping[str, Sequence[RunResult]]) -> list[dict[str, Any]]:
    """Every contrast of the study; one that is not decided stays in the family that p is corrected for, with p = 1."""
    entries = [_contrast_entry(study, a, b, by_arm) for a, b in study.contrasts]
    p_values = [1.0 if entry["p_value"] is None else entry["p_value"] for entry in entries]
    for entry, adjusted_p in zip(entries, holm(p_values), strict=True):
        if entry["p_value"] is not None:
            entry["p_holm"] = adjusted_p
            entry["verdict"] = _verdict(adjusted_p, entry["n"], len(entries))
        entry["sentence"] = contrast_sentence(entry, len(entries))
    return entries


def _verdict(adjusted_p: float, seeds: int, contrasts: int) -> str:
    if not is_decidable(seeds, contrasts):
        return UNDECIDABLE_VERDICT
    return EFFECT_VERDICT if adjusted_p <= LEVEL else NO_EFFECT_VERDICT


def _contrast_entry(study: StudyRecord, a: str, b: str, by_arm: Mapping[str, Sequence[RunResult]]) -> dict[str, Any]:
    of_a, of_b = ({result.run.seed: result for result in by_arm[arm]} for arm in (a, b))
    missing = [result for result in (*of_a.values(), *of_b.values()) if result.state != DONE_STATE]
    scores_a, scores_b = ({seed: result.score for seed, result in of_arm.items() if result.score is not None} for of_arm in (of_a, of_b))
    differences = {seed: scores_a[seed] - scores_b[seed] for seed in study.seeds if seed in scores_a and seed in scores_b}
    is_complete = not missing and len(differences) == len(study.seeds)
    effect = paired_effect(list(differences.values()), len(study.contrasts)) if is_complete else None
    return {
        "a": a,
        "b": b,
        "verdict": UNDECIDED_VERDICT,
        "sentence": "",
        "missing": [{"arm": result.run.arm, "seed": result.run.seed, "state": result.state} for result in missing],
        "differences": [{"seed": seed, "difference": difference} for seed, difference in differences.items()],
        "score_a": _mean(list(scores_a.values())) if is_complete else None,
        "score_b": _mean(list(scores_b.values())) if is_complete else None,
        **_effect_figures(effect),
        "p_holm": None,
        "tokens_to_control": _tokens_to_control(of_a, of_b, study.seeds) if is_complete else None,
    }


def _effect_figures(effect: PairedEffect | None) -> dict[str, Any]:
    if effect is None:
        names = ("mean", "sd", "low", "high", "interval_kind", "bca_low", "bca_high", "p_value", "effect_size", "detectable_effect")
        return {"n": None, **dict.fromkeys(names)}
    low, high = effect.interval or (None, None)
    bca_low, bca_high = effect.bca or (None, None)
    return {
        "n": effect.n,
        "mean": effect.mean,
        "sd": effect.sd,
        "low": low,
        "high": high,
        "interval_kind": effect.interval_kind,
        "bca_low": bca_low,
        "bca_high": bca_high,
        "p_value": effect.p_value,
        "effect_size": effect.effect_size,
        "detectable_effect": effect.detectable_effect,
    }


def _tokens_to_control(of_a: Mapping[int, RunResult], of_b: Mapping[int, RunResult], seeds: Sequence[int]) -> dict[str, Any]:
    """The generated tokens at which arm a first has the score that arm b of the same seed ends with; medians over seeds.

    A seed that never reaches it counts as later than all others, so the median is null if half of the seeds do not.
    """
    reached_tokens = [tokens_to_reach(of_a[seed].curve, of_b[seed].score or 0.0) for seed in seeds]
    median = float(np.median([np.inf if tokens is None else tokens for tokens in reached_tokens]))
    return {
        "reached": sum(tokens is not None for tokens in reached_tokens),
        "median": median if np.isfinite(median) else None,
        "control": float(np.median([of_b[seed].generated_tokens or 0.0 for seed in seeds])),
    }


def _have_same_stages(runs_a: Sequence[RunResult], runs_b: Sequence[RunResult]) -> bool:
    """Whether two arms are one, because their runs end before anything differs."""
    return all(
        a.state == b.state == DONE_STATE and (a.costs or {}).keys() == (b.costs or {}).keys() for a, b in zip(runs_a, runs_b, strict=True)
    )


def _notes(study: StudyRecord, document: Mapping[str, Any], by_arm: Mapping[str, Sequence[RunResult]]) -> list[str]:
    """What a reader must know to read the figures."""
    contrasts = document["contrasts"]
    limit = power_limit(len(study.seeds), len(contrasts))
    kinds = dict.fromkeys(entry["interval_kind"] for entry in contrasts if entry["interval_kind"])
    test_kind = "exact" if len(study.seeds) <= EXACT_SEEDS else f"with {RANDOM_PATTERNS:,} random sign patterns"
    uncounted_text = "lack the responses that training sampled itself, whose tokens were not counted then"
    uncounted_arms = [arm for arm, runs in by_arm.items() if any(map(lacks_sampled_tokens, runs))]
    return [
        *([limit] if limit else []),
        *(
            f"{a} and {b} have the same stages with every seed: their difference is 0 whatever {b} changes; raise the budget"
            for a, b in study.contrasts
            if _have_same_stages(by_arm[a], by_arm[b])
        ),
        *([f"generated tokens of {', '.join(uncounted_arms)} {uncounted_text}"] if uncounted_arms else []),
        f"score: {study.measure} {_scored_place(study.budget)}; generated tokens are those of policy and evolver, without evaluation",
        f"p values: sign-flip test over seeds, two-sided, {test_kind}"
        + (f"; corrected by Holm for all {len(contrasts)} contrasts" if len(contrasts) > 1 else ""),
        *(INTERVAL_NOTES[kind] for kind in kinds),
        "cost: a stage that runs share counts once per arm, and once in the total",
    ]


def _scored_place(budget: Budget) -> str:
    """Where the arms are compared. Beside a number of tokens, that of iterations only limits the runs."""
    if budget.generated_tokens is not None:
        return f"at {budget.generated_tokens:,.0f} generated tokens, linear between iterations"
    return "after the last iteration" if budget.iterations is None else f"after iteration {budget.iterations}"
