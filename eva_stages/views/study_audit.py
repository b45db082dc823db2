"""The audit of a study: for each arm the figures of its runs, as means over seeds with intervals over seeds."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from eva_stages.core.config.function_fields import METRIC
from eva_stages.core.errors import ConfigError
from eva_stages.core.named_functions import known_functions
from eva_stages.evaluation import audit_statistics as statistics
from eva_stages.evaluation.study_statistics import CONFIDENCE, t_interval
from eva_stages.views.audit_document import (
    FALLBACK_METRIC,
    FIGURES,
    NOTHING_TO_ACT_ON,
    SELECTED_FAMILIES,
    UNIFORM_RUN,
    Figure,
    audited_record,
    figure_samples,
    heritability,
    recipe_metric,
)
from eva_stages.views.history import History
from eva_stages.views.influence_file import read_influence
from eva_stages.views.study_runs import RunResult

RANGES = {
    "learnable": (0.0, 1.0),
    **dict.fromkeys(("reliability", "parent_child", "siblings", "siblings_corrected", "influence", "gain"), (-1.0, 1.0)),
}
"""Of the figures that are shares or correlations: an interval of few seeds would contain values that no share and no correlation has."""


def study_audit(arms: Iterable[str], runs: Sequence[RunResult]) -> list[dict[str, Any]]:
    """An entry per arm of a study, from its runs that can be audited.

    Each has the judged metric, `heritability` (as in a run's audit, by the interval over seeds), whether prompts were drawn uniformly, the
    figures, and the reasons why runs have none.
    """
    return [_arm_entry(arm, [result for result in runs if result.run.arm == arm]) for arm in arms]


def _arm_entry(arm: str, runs: Sequence[RunResult]) -> dict[str, Any]:
    values: dict[str, dict[str, float]] = {}
    """By seed."""
    metrics, draws, seeds_of_reasons = list[str](), list[bool](), dict[str, list[str]]()
    for result in runs:
        try:
            metric, is_uniform, figures = _run_values(result.history)
        except ConfigError as error:
            seeds_of_reasons.setdefault(error.faults[0], []).append(str(result.run.seed))
            continue
        metrics.append(metric)
        draws.append(is_uniform)
        values[str(result.run.seed)] = figures
    if len(values) == 1:
        seeds_of_reasons["no other run can be audited, and an interval over seeds needs two; use `eva audit` for this run"] = list(values)
    figures_of_arm = {name: _mean([figures[name] for figures in values.values()], name) for name in ("learnable", *FIGURES)}
    return {
        "arm": arm,
        "judged_metric": metrics[0] if metrics else None,
        "heritability": heritability(figures_of_arm["siblings"]),
        "uniform_draw": all(draws),
        "figures": figures_of_arm,
        "reasons": [f"seed{'' if len(seeds) == 1 else 's'} {', '.join(seeds)}: {reason}" for reason, seeds in seeds_of_reasons.items()],
    }


def _run_values(history: History | None) -> tuple[str, bool, dict[str, float]]:
    """The judged metric of a run, whether it drew prompts uniformly, and the values of its figures, NaN where one is not known.

    Raises:
        ConfigError: if the run cannot be audited.
    """
    if history is None:
        raise ConfigError(["there is no run that can be read"])
    record, functions = audited_record(history), known_functions(METRIC)
    influence = read_influence(history, record.iteration)
    name = metric if (metric := recipe_metric(history)) in functions else FALLBACK_METRIC
    samples = figure_samples(record, functions[name], influence)
    if samples is None:
        name = FALLBACK_METRIC
        samples = figure_samples(record, functions[name], influence) or dict.fromkeys(FIGURES)
    is_learnable, _ = statistics.learnable(record.candidates.rewards)
    values = {name: statistics.point_value(sample.statistic, sample.units) if sample else np.nan for name, sample in samples.items()}
    return name, record.is_uniform, {"learnable": float(is_learnable.mean()), **values}


def _mean(values: Sequence[float], name: str) -> Figure:
    """The mean over seeds with Student's interval; n is the number of seeds. None below two seeds, which give no interval."""
    known_values = np.array([value for value in values if np.isfinite(value)])
    if len(known_values) < 2:
        return None
    mean = float(known_values.mean())
    low, high = t_interval(known_values, CONFIDENCE) if np.ptp(known_values) > 0 else (mean, mean)
    lower_bound, upper_bound = RANGES.get(name, (-np.inf, np.inf))
    return {"value": mean, "low": max(low, min(lower_bound, mean)), "high": min(high, max(upper_bound, mean)), "n": len(known_values)}


def audit_sentences(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """In which arms selection can work, and what to know about the arms in which it is not shown."""
    audited_entries = [entry for entry in entries if entry["judged_metric"] is not None]
    sentences = {
        "below": f"Selection cannot work in {{}}: the intraclass correlation of siblings is below .1, so {NOTHING_TO_ACT_ON}.",
        "unclear": "It is not known whether selection can work in {}: the intraclass correlation of siblings may be below or above .1.",
        "fine": "Selection can work in {}: the intraclass correlation of siblings is above .1.",
        "unknown": "It is not known whether selection can work in {}: that takes siblings with different values, of two seeds or more.",
    }
    arms = {state: ", ".join(entry["arm"] for entry in audited_entries if entry["heritability"] == state) for state in sentences}
    answers = [sentences[state].format(names) for state, names in arms.items() if names]
    doubtful_arms = [
        entry["arm"] for entry in audited_entries if entry["heritability"] in ("below", "unclear") and not entry["uniform_draw"]
    ]
    return [*answers, f"{SELECTED_FAMILIES} in {', '.join(doubtful_arms)}: {UNIFORM_RUN}"] if doubtful_arms else answers
