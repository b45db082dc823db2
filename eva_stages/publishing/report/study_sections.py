"""The sections about arms: contrasts, learning curves, scores; of a complete study, or of some of its runs side by side."""

import json
from collections.abc import Mapping
from typing import Any

from eva_stages.publishing.report.plots import Plot
from eva_stages.publishing.report.section_html import Cell, Section, Table
from eva_stages.publishing.report.study_plots import curve_plot, forest_plot


def contrast_section(document: Mapping[str, Any]) -> Section:
    contrasts = document["contrasts"]
    keys = ("a", "b", "verdict", "mean", "low", "high", "p_value", "p_holm", "score_a", "score_b", "effect_size", "detectable_effect", "n")
    heads = ["a", "b", "verdict", "a - b", "low", "high", "p", "p (Holm)", "score of a", "score of b", "d", "MDE", "seeds"]
    rows: list[list[Cell]] = [[entry[key] for key in keys] for entry in contrasts]
    note = (
        "low, high: 95 % interval of a - b; d: mean difference / its standard deviation over seeds (Cohen's d_z); MDE: minimum detectable "
        "effect, found with 80 % probability at the level of Holm's first step."
    )
    details = Table("Differences by seed, and BCa intervals", *_seed_rows(document), is_folded=True)
    plot = forest_plot(document)
    return Section(
        "contrasts", "Contrasts", [entry["sentence"] for entry in contrasts], _plots(plot), [Table("Contrasts", heads, rows, note), details]
    )


def _seed_rows(document: Mapping[str, Any]) -> tuple[list[str], list[list[Cell]], str]:
    seeds = document["seeds"]
    heads = ["a", "b", "BCa low", "BCa high", *(f"seed {seed}" for seed in seeds)]
    rows: list[list[Cell]] = []
    for entry in document["contrasts"]:
        by_seed = {difference["seed"]: difference["difference"] for difference in entry["differences"]}
        rows.append([entry["a"], entry["b"], entry["bca_low"], entry["bca_high"], *(by_seed.get(seed) for seed in seeds)])
    return (
        heads,
        rows,
        "BCa intervals of few seeds are too short: with 10 seeds they contain the effect in 83 to 90 % of studies, not 95 %.",
    )


def curve_section(document: Mapping[str, Any]) -> Section:
    rows: list[list[Cell]] = []
    for entry in document["contrasts"]:
        if tokens := entry["tokens_to_control"]:
            share_text = f"{tokens['reached']} of {entry['n']} seeds"
            rows.append([entry["a"], entry["b"], tokens["median"], tokens["control"], share_text])
    heads = ["a", "b", "a: tokens to b's final score", "b: tokens", "reached by"]
    note = (
        "The first time that a's score is b's final score or more. Medians over seeds, linear between iterations; empty where half of the "
        "seeds or more do not reach the score."
    )
    tables = [Table("Generated tokens to reach the control's score", heads, rows, note)] if rows else []
    return Section("curves", "Learning curves", [], _plots(curve_plot(document)), tables)


def arm_section(document: Mapping[str, Any]) -> Section:
    keys = ("arm", "done", "runs", "mean", "sd", "low", "high", "generated_tokens")
    heads = ["arm", "done", "runs", "mean score", "sd", "low", "high", "generated tokens", "overrides"]
    rows: list[list[Cell]] = [[*(entry[key] for key in keys), _overrides_text(entry["overrides"])] for entry in document["arms"]]
    seeds = document["seeds"]
    score_rows: list[list[Cell]] = []
    for arm in document["arms"]:
        by_seed = {entry["seed"]: entry for entry in document["runs"] if entry["arm"] == arm["arm"]}
        score_rows.append([arm["arm"], *(_score_cell(by_seed[seed]) for seed in seeds)])
    tables = [
        Table("Arms", heads, rows, "Mean and standard deviation over seeds; low, high: 95 % interval of Student's t."),
        Table("Scores by seed", ["arm", *(f"seed {seed}" for seed in seeds)], score_rows, is_folded=True),
    ]
    return Section("arms", "Arms", [], [], tables)


def _score_cell(entry: Mapping[str, Any]) -> Cell:
    score: Cell = entry["score"]
    return entry["state"] if score is None else score


def _overrides_text(overrides: Mapping[str, Any]) -> str:
    return ", ".join(f"{path} = {json.dumps(value)}" for path, value in overrides.items()) or "none"


def _plots(plot: Plot | None) -> list[Plot]:
    return [plot] if plot else []
