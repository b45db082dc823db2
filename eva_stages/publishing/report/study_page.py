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
from eva_stages.publishing.report.page import write_plots
from eva_stages.publishing.report.page_html import PageContents, render
from eva_stages.publishing.report.palette import arm_colour
from eva_stages.publishing.report.section_html import Cell, Section, Table
from eva_stages.publishing.report.study_sections import arm_section, contrast_section, curve_section
from eva_stages.views.study_runs import DONE_STATE

REPORT, PLOTS = "report.html", "report"


def study_page(folder: Path, document: Mapping[str, Any]) -> str:
    """Write the plots of a study beside its report; returns the report's HTML."""
    sections = [contrast_section(document), curve_section(document), arm_section(document)]
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
    contents = PageContents(
        title=f"eva study: {document['study']}",
        question=document["question"],
        answer=document["answer"],
        sections=sections,
        about=[_about(document)],
        key=[(entry["arm"], (arm_colour(index),)) for index, entry in enumerate(document["arms"])],
    )
    return render(contents, privacy)


def _about(document: Mapping[str, Any]) -> str:
    done_count = sum(entry["state"] == DONE_STATE for entry in document["runs"])
    base = f" of {document['base']}" if document["base"] else ""
    return (
        f"Study {document['study']}{base}: {len(document['arms'])} arms, {count_text(len(document['seeds']), 'seed')}, "
        f"{done_count} of {len(document['runs'])} runs done; measure {document['measure']}."
    )


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
