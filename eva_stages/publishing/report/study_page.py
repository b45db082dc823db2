"""The report of a study: the answer first, then every contrast, the curves, the arms, what they cost, and what is missing.

The page contains no time of rendering; only its tables of costs have times. Everything in it is from the document of the study.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eva_stages.core.text_table import count_text
from eva_stages.publishing.privacy import Privacy
from eva_stages.publishing.report.audit_section import study_audit_section
from eva_stages.publishing.report.page import render, write_plots
from eva_stages.publishing.report.plots import Plot
from eva_stages.publishing.report.section_html import Cell, Section, Table
from eva_stages.publishing.report.study_plots import curve_plot, forest_plot
from eva_stages.views.study_runs import DONE_STATE

REPORT, PLOTS = "report.html", "report"


def study_page(folder: Path, document: Mapping[str, Any]) -> str:
    """Write the plots of a study beside its report; returns the report's HTML."""
    sections = [_contrast_section(document), _curve_section(document), _arm_section(document)]
    sections += [
        study_audit_section(document["audit"]),
        _cost_section(document),
        _missing_section(document),
        _paper_section(document),
        _rerun_section(document),
    ]
    sections = [section for section in sections if section.lead or section.plots or section.tables or section.missing]
    privacy = Privacy(folder)
    write_plots(folder / PLOTS, sections, privacy)
    return render(f"eva study: {document['study']}", [_about(document)], sections, privacy, None, document["question"], document["answer"])


def _about(document: Mapping[str, Any]) -> str:
    done_count = sum(entry["state"] == DONE_STATE for entry in document["runs"])
    base = f" of {document['base']}" if document["base"] else ""
    return (
        f"Study {document['study']}{base}: {len(document['arms'])} arms, {count_text(len(document['seeds']), 'seed')}, "
        f"{done_count} of {len(document['runs'])} runs done; measure {document['measure']}."
    )


def _contrast_section(document: Mapping[str, Any]) -> Section:
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


def _curve_section(document: Mapping[str, Any]) -> Section:
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


def _arm_section(document: Mapping[str, Any]) -> Section:
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


def _cost_section(document: Mapping[str, Any]) -> Section:
    keys = ("stages", "output_tokens", "hours", "gpu_hours", "usd")
    rows: list[list[Cell]] = [[entry["arm"], *(entry["cost"][key] for key in keys)] for entry in document["arms"]]
    rows.append(["all arms", *(document["cost"][key] for key in keys)])
    heads = ["arm", "stages", "output tokens", "hours of stage time", "GPU-hours", "USD"]
    lead = [
        "A stage that runs share counts once per arm, and once in the last row, so the arms add up to more than the study. "
        "Output tokens include those of evaluation and judges; attempts that did not complete a stage are left out."
    ]
    return Section("costs", "Cost", lead, [], [Table("Cost per arm", heads, rows)])


def _missing_section(document: Mapping[str, Any]) -> Section:
    rows: list[list[Cell]] = [
        [entry["arm"], entry["seed"], entry["state"], entry["cause"]] for entry in document["runs"] if entry["state"] != DONE_STATE
    ]
    lead = ["Contrasts with a run that is not done are not decided. Rerunning the study continues these runs."] if rows else []
    return Section(
        "missing", "Missing runs", lead, [], [Table("Runs that are not done", ["arm", "seed", "state", "cause"], rows)] if rows else []
    )


def _paper_section(document: Mapping[str, Any]) -> Section:
    return Section("paper", "What the paper reports", [document["paper"]] if document["paper"] else [])


def _rerun_section(document: Mapping[str, Any]) -> Section:
    command = f"`{document['command']}`" if document["command"] else "The command that made the study"
    lead = [f"{note[0].upper()}{note[1:].removesuffix('.')}." for note in document["notes"][:-1]]
    lead += [f"{command} computes what is missing and writes this report again; complete stages are not computed again."]
    settings = {name: document[name] for name in ("base", "set", "measure", "budget", "seeds")}
    arms = {"arms": {entry["arm"]: entry["overrides"] for entry in document["arms"]}}
    text = json.dumps({**settings, **arms}, indent=1, ensure_ascii=False)
    return Section("rerun", "Method, and how to rerun", lead, texts=[("The study", text)])


def _plots(plot: Plot | None) -> list[Plot]:
    return [plot] if plot else []
