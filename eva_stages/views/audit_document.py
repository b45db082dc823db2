"""The audit of a run: can selecting prompts by a metric work here at all? One document for the terminal, JSON, the report and studies.

Selection by informativeness can help only if the metric is measured reliably and if what it measures is heritable: the children of an
informative prompt must be more informative than other prompts' children. Everything here is computed from the run's folder; the one-step
influence was computed by `eva audit RUN --influence N` and is read from a file.
"""

from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from eva_stages.core.config.function_fields import METRIC
from eva_stages.core.errors import ConfigError
from eva_stages.core.named_functions import known_functions
from eva_stages.evaluation import audit_statistics as statistics
from eva_stages.views.history import History
from eva_stages.views.influence_file import Influence, read_influence
from eva_stages.views.selection_records import SelectionRecord, selection_record, selection_records

LEAST_HERITABILITY = 0.1
"""Intraclass correlation of siblings below which selection has nothing to act on."""
FALLBACK_METRIC = "reward_gap"
SAME_AS_VARIANCE = "learnability"
"""Equal to reward_variance where it is defined, for rewards of 0 and 1; audited only where it is the recipe's metric."""
FIGURES_OF_ITERATIONS = ("reliability", "parent_child", "siblings", "siblings_corrected", "lift", "lift_of_variance")
FIGURES = (*FIGURES_OF_ITERATIONS, "influence", "gain")
SELECTED_FAMILIES = "Selected prompts differ less from each other than all candidates, which lowers the correlation of siblings"
UNIFORM_RUN = "a run with creator.metric=uniform, without novelty and archive, measures it over all candidates."
NOTHING_TO_ACT_ON = "there is nothing for selection to act on"

Figure = dict[str, Any] | None


class Sample(NamedTuple):
    """A figure to be estimated, the number of its independent units, the number that it is reported to be based on, and its scale."""

    statistic: statistics.Statistic
    units: int
    n: int
    scale: statistics.Scale | None = None


def audit(history: History, iteration: int | None = None) -> dict[str, Any]:
    """The audit of one iteration, by default the first that has evolved and scored prompts, and a line for each of the others.

    The first is the one whose candidates are the seed prompts; later sets were already shaped by selection.

    Raises:
        ConfigError: if the run has no such iteration, or not the one asked for, with the reason.
    """
    record = audited_record(history, iteration)
    influence = read_influence(history, record.iteration)
    chosen_metric = recipe_metric(history)
    functions = {name: metric for name, metric in known_functions(METRIC).items() if name == chosen_metric or name != SAME_AS_VARIANCE}
    metrics = {name: figures for name, metric in functions.items() if (figures := _figures(record, metric, influence)) is not None}
    judged_metric = chosen_metric if chosen_metric in metrics else FALLBACK_METRIC
    state, verdict = _verdict(metrics.get(judged_metric), judged_metric, record)
    is_learnable, rule = statistics.learnable(record.candidates.rewards)
    return {
        "run": history.name,
        "iteration": record.iteration,
        "verdict": verdict,
        "heritability": state,
        "warnings": [verdict] if state == "below" else [],
        "metric": chosen_metric,
        "judged_metric": judged_metric,
        "responses": record.candidates.rewards.shape[1],
        "candidates": len(record.candidates.ids),
        "children": len(record.children.ids),
        "families": int(record.families.max()) + 1,
        "learnable": {**(_share(is_learnable) or {}), "rule": rule},
        "metrics": metrics,
        "notes": [*_advice(state, record), *_notes(history, record, judged_metric, influence)],
        "iterations": [_line(iteration_record, judged_metric) for iteration_record in selection_records(history)],
    }


def audited_record(history: History, iteration: int | None = None) -> SelectionRecord:
    """What `audit` is about.

    Raises:
        ConfigError: as `audit` says.
    """
    if iteration is None and (record := next(selection_records(history), None)):
        return record
    try:
        return selection_record(history, iteration or 1)
    except ConfigError as error:
        iterations = ", ".join(str(record.iteration) for record in selection_records(history))
        advice = f". Iterations that can be audited: {iterations}" if iterations else ""
        raise ConfigError([error.faults[0] + advice]) from error


def recipe_metric(history: History) -> str:
    return str((history.recipe.get("creator") or {}).get("metric", FALLBACK_METRIC))


def figure_samples(record: SelectionRecord, metric: statistics.Metric, influence: Influence | None) -> dict[str, Sample | None] | None:
    """Every figure of a metric, to be computed; None for a metric that does not depend on the rewards."""
    candidates, children, families = record.candidates.rewards, record.children.rewards, record.families
    parent_values, child_values = metric(candidates), metric(children)
    if np.ptp(parent_values) == 0 and np.ptp(child_values) == 0:
        return None
    count, family_count = len(children), int(families.max()) + 1
    prompts = np.arange(len(candidates))
    pairs = parent_values[record.parents][:, None], child_values[:, None]
    siblings, scale = statistics.intraclass_correlation(child_values, families), statistics.f_ratio_scale(families)
    # halves of responses that were compared with each other are not independent
    reliability = Sample(statistics.reliability(candidates, metric, prompts), len(candidates), len(candidates))
    corrected_siblings = Sample(statistics.corrected_intraclass_correlation(children, metric, families), family_count, count)
    return {
        "reliability": None if record.candidates.are_relative else reliability,
        "parent_child": Sample(statistics.correlation(*pairs, families), family_count, count),
        "siblings": Sample(siblings, family_count, count, scale),
        "siblings_corrected": None if record.children.are_relative else corrected_siblings,
        "lift": _lift(record, parent_values, child_values),
        "lift_of_variance": _lift(record, parent_values, children.var(axis=1)),
        "influence": _influence(metric, influence),
        "gain": _gain(record, metric),
    }


def _figures(record: SelectionRecord, metric: statistics.Metric, influence: Influence | None) -> dict[str, Figure] | None:
    samples = figure_samples(record, metric, influence)
    return None if samples is None else {name: _figure(sample) for name, sample in samples.items()}


def _lift(record: SelectionRecord, parent_values: np.ndarray, child_values: np.ndarray) -> Sample | None:
    """By how much drawing parents by the metric raises the mean of their children, over the parents that could be drawn."""
    if record.inclusion is None or child_values.min() < 0 or not child_values.any():
        return None
    parents, families = np.unique(record.parents, return_inverse=True)
    inclusion = record.inclusion[parents]
    could_be_drawn = inclusion > 0
    span = np.ptp(parent_values)
    weights = ((parent_values - parent_values.min()) / (span if span > 0 else 1.0))[parents][could_be_drawn]
    if np.unique(weights).size < 2:  # drawing by the metric is then drawing uniformly
        return None
    means = np.bincount(families, child_values) / np.bincount(families)
    count = int(could_be_drawn.sum())
    statistic = statistics.lift(means[could_be_drawn], weights, inclusion[could_be_drawn])
    return Sample(statistic, count, count)


def _influence(metric: statistics.Metric, influence: Influence | None) -> Sample | None:
    if influence is None:
        return None
    values, count = metric(influence.rewards), len(influence.values)
    return Sample(statistics.rank_correlation(values[:, None], influence.values[:, None], np.arange(count)), count, count)


def _gain(record: SelectionRecord, metric: statistics.Metric) -> Sample | None:
    """The metric before training and the change of the mean reward, from different halves of the responses before.

    From the same responses, their noise would be in both and correlate them.
    """
    if record.training is None:
        return None
    prompts, new_means = record.training
    if prompts.are_relative:
        return None
    splits = [(first, second) for halves in statistics.halves(prompts.rewards.shape[1]) for first, second in (halves, halves[::-1])]
    if not splits:
        return None
    values = np.stack([metric(prompts.rewards[:, first]) for first, _ in splits], axis=1)
    gains = np.stack([new_means - prompts.rewards[:, second].mean(axis=1) for _, second in splits], axis=1)
    count = len(new_means)
    return Sample(statistics.rank_correlation(values, gains, np.arange(count)), count, count)


def _share(flags: np.ndarray) -> Figure:
    return _figure(Sample(statistics.share(flags), len(flags), len(flags)))


def _line(record: SelectionRecord, name: str) -> dict[str, Any]:
    """The figures of one metric in one iteration."""
    samples = figure_samples(record, known_functions(METRIC)[name], None) or dict.fromkeys(FIGURES)
    is_learnable, _ = statistics.learnable(record.candidates.rewards)
    figures = {figure: _figure(samples[figure]) for figure in FIGURES_OF_ITERATIONS}
    return {"iteration": record.iteration, "learnable": _share(is_learnable), **figures}


def heritability(siblings: Figure) -> str:
    """Whether the intraclass correlation of siblings is below the least that selection can act on."""
    if siblings is None:
        return "unknown"
    return "below" if siblings["high"] < LEAST_HERITABILITY else "unclear" if siblings["low"] < LEAST_HERITABILITY else "fine"


def _verdict(figures: dict[str, Figure] | None, metric: str, record: SelectionRecord) -> tuple[str, str]:
    """Whether siblings resemble each other, as a word and as the sentence that an audit starts with."""
    siblings = (figures or {}).get("siblings")
    sample = f"{len(record.children.ids):,} evolved prompts in {int(record.families.max()) + 1:,} families"
    if siblings is None:
        return "unknown", f"It is not known whether selection can work here: {sample} are too few, or their {metric} is always the same."
    numbers = f"the intraclass correlation of siblings' {metric} is {interval_text(siblings)}"
    state = heritability(siblings)
    answer = {
        "below": f"Selection cannot work here: {numbers}, below .1, so {NOTHING_TO_ACT_ON}",
        "unclear": f"It is not known whether selection can work here: {numbers}, which may be below or above .1",
        "fine": f"Selection can work here: {numbers}, above .1",
    }[state]
    corrected_figure = (figures or {}).get("siblings_corrected")
    noise = (
        f" Without the noise of {record.children.rewards.shape[1]} responses it is {interval_text(corrected_figure)}."
        if corrected_figure
        else ""
    )
    caution = f" {SELECTED_FAMILIES}: {UNIFORM_RUN}" if state == "below" and not record.is_uniform else ""
    return state, f"{answer} ({sample}).{noise}{caution}"


def _advice(state: str, record: SelectionRecord) -> list[str]:
    """What to do about a verdict that is not good, and what to know before."""
    if state == "fine":
        return []
    advice = (
        "To raise it: more responses (creator.responses), a metric with a higher reliability, creator.evolve.shape=siblings, or an evolve "
        "method that keeps the task."
        if state == "below"
        else "To decide it: more families (more prompts, a larger creator.selection.fraction), or several seeds in a study (eva ablate)."
    )
    return [advice] if record.is_uniform or state == "below" else [f"{SELECTED_FAMILIES}: {UNIFORM_RUN}", advice]


def _notes(history: History, record: SelectionRecord, judged_metric: str, influence: Influence | None) -> list[str]:
    """Why figures are missing, and what the reader must know about the others."""
    notes, chosen_metric = [], recipe_metric(history)
    if chosen_metric != judged_metric:
        reason = (
            "does not depend on the rewards" if chosen_metric in METRIC.names else "is a function in a file, which an audit does not run"
        )
        notes.append(f"The recipe's metric {chosen_metric} {reason}; the verdict is about {judged_metric}.")
    if (count := record.candidates.rewards.shape[1]) < statistics.LEAST_RESPONSES:
        least_count = statistics.LEAST_RESPONSES
        notes.append(f"No reliability: {count} responses per prompt cannot be split into halves with a spread; it needs {least_count}.")
    if record.candidates.are_relative:
        notes.append(
            "No reliability and no gain: the reward compares the responses of a prompt with each other, so halves of them are not "
            "independent, and every prompt has the same mean."
        )
    if record.orphans:
        notes.append(
            f"{record.orphans:,} more evolved prompts are left out: the archive drew their parents from earlier sets, which this iteration "
            "did not score."
        )
    if record.next_policy_scores:
        notes.append("The evolved prompts were scored under the next policy: training samples its own responses.")
    elif ((history.recipe.get("creator") or {}).get("training") or {}).get("network") == "shared":
        notes.append("The evolved prompts were scored after the creator's training, which changes the policy (creator.training.network).")
    if record.inclusion is None:
        notes.append(f"No lift: {record.draw_note}.")
    elif undrawn_count := int((record.inclusion == 0).sum()):
        notes.append(
            f"Lift is over the candidates that could be drawn: {undrawn_count:,} of {len(record.inclusion):,} have weight 0, and no "
            "children. It is empty for a metric that is the same for all the others. A run with creator.metric=uniform gives the lift "
            "over all."
        )
    if record.training is None:
        notes.append("No gain: the prompts of this iteration were not scored both before and after its training.")
    training = history.find("train", record.iteration)
    if influence is None and training is not None and "pairs" in training.inputs:
        notes.append("No influence: run `eva audit RUN --influence N`, which loads the policy.")
    elif influence is None:
        notes.append("No influence: it is the effect of training on a prompt's pair, and this iteration has no training on pairs.")
    else:
        count, held_out_count = len(influence.values), influence.facts.get("held_out_pairs")
        notes.append(
            f"Influence: one gradient step on each of {count:,} prompts' pairs at the recipe's learning rate and loss, and the fall of the "
            f"loss on {held_out_count:,} pairs of prompts that descend from other seed prompts."
        )
    return notes


def _figure(sample: Sample | None) -> Figure:
    estimate = None if sample is None else statistics.estimate(*sample)
    return None if estimate is None else asdict(estimate)


def interval_text(figure: Figure) -> str:
    """As in ".31 [.25 .37]", or "-.02 [-.10 .05]"."""
    return "" if figure is None else f"{_short(figure['value'])} [{_short(figure['low'])} {_short(figure['high'])}]"


def _short(value: float) -> str:
    text = f"{value:.2f}"
    text = text.removeprefix("-") if float(text) == 0 else text
    return text.replace("0.", ".", 1) if abs(float(text)) < 1 else text
