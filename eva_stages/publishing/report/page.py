"""The report of a run, or of several, as one HTML file without scripts and external resources, and its plots as files beside it."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from eva_stages.core.durable import write_whole
from eva_stages.core.event_log import utc_now
from eva_stages.core.progress import duration
from eva_stages.publishing.privacy import Privacy, hosts_of
from eva_stages.publishing.report.answer_sentences import (
    COMPARISON_QUESTION,
    RUN_QUESTION,
    comparison_answer,
    paired_tests,
    run_answer,
)
from eva_stages.publishing.report.audit_section import audit_section
from eva_stages.publishing.report.comparison_section import differences, side_by_side
from eva_stages.publishing.report.costs_section import costs
from eva_stages.publishing.report.curriculum_section import curriculum
from eva_stages.publishing.report.examples_section import examples
from eva_stages.publishing.report.health_section import health
from eva_stages.publishing.report.informativeness_section import informativeness
from eva_stages.publishing.report.judging_section import judging
from eva_stages.publishing.report.ledger_section import ledger
from eva_stages.publishing.report.online_section import online
from eva_stages.publishing.report.page_html import PageContents, moment, render
from eva_stages.publishing.report.palette import RUN_KEY, arm_colour
from eva_stages.publishing.report.provenance_section import provenance
from eva_stages.publishing.report.result_section import result
from eva_stages.publishing.report.section_html import Section
from eva_stages.publishing.report.solver_section import solver
from eva_stages.publishing.report.study_sections import arm_section, contrast_section, curve_section
from eva_stages.views.history import History
from eva_stages.views.run_groups import omitted_runs, partial_study, runs_by_arm

REPORT, COMPARISON = "report", "comparison"
SECTIONS: tuple[Callable[[History], Section | None], ...] = (
    curriculum,
    online,
    informativeness,
    audit_section,
    solver,
    judging,
    health,
    examples,
    costs,
    ledger,
)


def write_report(histories: Sequence[History]) -> Path:
    """Write the report of a run, or the comparison of several into the folder of the first; returns the HTML file."""
    root, privacy = histories[0].root, privacy_of(histories)
    contents = run_contents(histories[0], privacy) if len(histories) == 1 else comparison_contents(histories, privacy)
    name = REPORT if len(histories) == 1 else COMPARISON
    write_plots(root / name, contents.sections, privacy)
    path = root / f"{name}.html"
    write_whole(path, render(contents, privacy))
    return path


def live_page(history: History, version: str, status: str, notice: str = "") -> str:
    """The report of a run that may go on, with its status above.

    Args:
        notice: stands in place of the report.
    """
    privacy = privacy_of([history])
    if history.artifacts and not notice:
        return render(run_contents(history, privacy), privacy, version, status)
    answer = notice or "No stage is complete yet."
    return render(PageContents(f"eva report: {history.name}", RUN_QUESTION, [answer], [], []), privacy, version, status)


def privacy_of(histories: Sequence[History]) -> Privacy:
    hosts = {host for history in histories for host in hosts_of(history.recipe)}
    return Privacy(histories[0].root, hosts=tuple(sorted(hosts)))


def run_contents(history: History, privacy: Privacy) -> PageContents:
    """The report of one run."""
    tests = paired_tests([history])
    sections = [result([history], tests), *(section for build in SECTIONS if (section := build(history)) is not None)]
    return PageContents(
        title=f"eva report: {history.name}",
        question=RUN_QUESTION,
        answer=run_answer(history, tests),
        sections=[*sections, provenance([history], privacy)],
        about=[_about(history)],
        key=RUN_KEY,
        time=moment(utc_now()),
    )


def comparison_contents(histories: Sequence[History], privacy: Privacy) -> PageContents:
    """Several runs side by side, by arm; if they are of one study, with its contrasts over the seeds that all their arms have."""
    tests, study = paired_tests(histories), partial_study(histories)
    question, answer = COMPARISON_QUESTION, comparison_answer(tests)
    arm_sections: list[Section] = []
    if study is not None:
        arm_sections = [contrast_section(study), curve_section(study), arm_section(study)]
        names = omitted_runs(study, histories)
        omission = f"Not in the contrasts, as not all arms have a run of the same seed: {', '.join(names)}."
        question, answer = study["question"], [*study["answer"], *([omission] if names else [])]
    sections = [result(histories, tests), differences(histories, privacy), side_by_side(histories), provenance(histories, privacy)]
    return PageContents(
        title=f"eva comparison: {', '.join(history.name for history in histories)}",
        question=question,
        answer=answer,
        sections=[*arm_sections, *sections],
        about=[_about(history) for history in histories],
        key=[(arm, (arm_colour(index),)) for index, arm in enumerate(runs_by_arm(histories))],
        time=moment(utc_now()),
    )


def _about(history: History) -> str:
    seconds = sum(artifact.manifest["seconds"] for artifact in history.artifacts)
    last_end = max((artifact.manifest["ended"] for artifact in history.artifacts), default="never")
    rounds = len(history.every("train"))
    policies_text = f"{rounds} trained polic{'y' if rounds == 1 else 'ies'}"
    stages_text = f"{len(history.artifacts)} finished stages, the last {moment(last_end)}"
    return f"{history.name}: {stages_text}; {policies_text}; {duration(seconds)} of stage time"


def write_plots(folder: Path, sections: Sequence[Section], privacy: Privacy) -> None:
    """Write the plots of a page as files, in place of earlier ones."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for section in sections:
        for plot in section.plots:
            (folder / f"{plot.name}.svg").write_text(privacy.text(plot.svg), encoding="utf-8")
            (folder / f"{plot.name}.png").write_bytes(plot.png)
