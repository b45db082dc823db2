"""The health of every iteration: the signs of one that went wrong, each beside its limit in the run's recipe."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from eva_stages.core.health_signs import SIGNS
from eva_stages.core.stage import Check
from eva_stages.publishing.report.palette import INK, MUTED_COLOUR
from eva_stages.publishing.report.plots import Plot, draw, iteration_points
from eva_stages.publishing.report.section_html import Cell, Section, Table
from eva_stages.views.history import History

Figures = dict[str, float | None]
TRAITS = {
    "reward": "mean reward of the responses",
    "win_rate": "judged win rate, 0 to 1",
    "answer_tokens": "tokens per response",
    "cells": "cells of the prompts",
    "held_out_reward": "mean held-out reward of the responses",
    "reward_gain": "gain of the training reward over the base policy (standard deviations)",
    "held_out_gain": "gain of the held-out reward over the base policy (standard deviations)",
    "held_out_change": "change of the held-out reward since the best earlier policy",
    "held_out_change_error": "its standard error over questions",
    "judge_agreement": "share of the judgments that the judge repeats",
    "judge_agreement_low": "its 95 % interval: lower end",
    "judge_agreement_high": "its 95 % interval: upper end",
    "judge_kappa_low": "95 % interval of the judge's kappa: lower end",
    "judge_kappa_high": "95 % interval of the judge's kappa: upper end",
    "judgments_repeated": "judgments that were repeated",
}
"""Figures without a limit, which others come from."""


def health(history: History) -> Section:
    figures = {artifact.iteration: artifact.manifest["figures"] for artifact in history.every("health")}
    if not figures:
        return Section("health", "Health", missing=["No health was measured yet; `eva run` measures it after each evaluation."])
    artifacts = history.every("health")
    checks = artifacts[0].planned_stage.checks
    lead = [sentence for check in checks if (sentence := _violations(check, figures))] or ["Every measured figure is within its limit."]
    limits: dict[str, Cell] = {check.figure: check.limit for check in checks}
    says = {name: meaning.says.rstrip(",") for name, meaning in SIGNS.items()} | TRAITS
    sides = {name: "at most" if meaning.is_maximum else "at least" for name, meaning in SIGNS.items()}
    rows: list[list[Cell]] = [
        [text, *(signs.get(name) for signs in figures.values()), sides.get(name, ""), limits.get(name)]
        for name, text in says.items()
        if any(signs.get(name) is not None for signs in figures.values())
    ]
    heads = ["figure", *(f"iteration {number}" for number in figures), "should be", "limit"]
    note = "Only figures that this run has. An empty limit is not checked. Limits are those of the run's recipe."
    return Section(
        "health",
        "Health",
        lead,
        [*_gains(figures), *_distance(figures)],
        [Table("Signs of an iteration that goes wrong", heads, rows, note)],
    )


def _violations(check: Check, figures: Mapping[int, Figures]) -> str | None:
    """The iterations that violate a limit, and the first violation; None if there are none."""
    violations = {number: sentence for number, signs in figures.items() if (sentence := check.violation(signs))}
    if not violations:
        return None
    first, *later = violations
    rest = f" (also {', '.join(map(str, later))})" if later else ""
    return f"Iteration {first}{rest}: {violations[first]}."


def _gains(figures: Mapping[int, Figures]) -> list[Plot]:
    """The training reward beside the held-out one; they part where the training reward is exploited."""
    names = {"reward_gain": "training reward", "held_out_gain": "held-out reward"}
    styles: list[dict[str, Any]] = [
        {"color": MUTED_COLOUR, "marker": "s", "linestyle": "--"},
        {"color": INK, "marker": "o", "linestyle": "-"},
    ]
    gains = {name: {number: value for number, signs in figures.items() if (value := signs.get(name)) is not None} for name in names}
    if not gains["held_out_gain"]:
        return []

    def paint(axes: Axes) -> None:
        for (name, label), style in zip(names.items(), styles, strict=True):
            if gains[name]:
                axes.plot(list(gains[name]), list(gains[name].values()), **style, label=label)
        axes.axhline(0.0, color=MUTED_COLOUR, linewidth=0.8, linestyle=":")
        axes.set_xticks(list(figures))

    n = f"n = {len(gains['held_out_gain']):,} policies"
    title = "Training reward and held-out reward"
    return [draw("health-rewards", title, n, "iteration", "gain over the base policy (sd)", paint)]


def _distance(figures: Mapping[int, Figures]) -> list[Plot]:
    """The distance to the base policy over the iterations."""
    kl_values = {number: value for number, signs in figures.items() if (value := signs.get("kl")) is not None}
    if not kl_values:
        return []

    def paint(axes: Axes) -> None:
        iteration_points(axes, {number: (value, value, value) for number, value in kl_values.items()})
        axes.update_datalim([(0.0, 0.0)])  # so that the margins are shares of what is shown
        axes.margins(x=0.15, y=0.1)
        axes.autoscale_view()
        axes.set_ylim(bottom=min(0.0, min(kl_values.values())))

    n = f"n = {len(kl_values):,} policies"
    return [draw("health-kl", "Distance of the policy to the base policy", n, "iteration", "KL divergence (nats per response)", paint)]
