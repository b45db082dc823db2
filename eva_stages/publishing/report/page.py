"""The report as one HTML file without scripts and external resources, and its plots as files beside it.

The page's content security policy forbids loading and scripts. Texts from data are shortened and made harmless, then escaped by the
template; private values are removed from the complete page at the end. The file is pure ASCII, so no encoding can break it.
"""

import re
import shutil
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import FileSystemLoader, StrictUndefined
from jinja2.sandbox import SandboxedEnvironment
from markupsafe import Markup, escape

from eva_stages.core.durable import write_whole
from eva_stages.core.event_log import utc_now
from eva_stages.core.harmless import harmless
from eva_stages.core.progress import duration
from eva_stages.publishing.privacy import Privacy, hosts_of
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
from eva_stages.publishing.report.plots import SERIES
from eva_stages.publishing.report.provenance_section import provenance
from eva_stages.publishing.report.result_section import result
from eva_stages.publishing.report.section_html import Section
from eva_stages.publishing.report.solver_section import solver
from eva_stages.views.history import History

REPORT, COMPARISON = "report", "comparison"
TEXT_CHARACTERS = 700
CELL_CHARACTERS = 200
SENTENCE_CHARACTERS = 600
RECIPE_CHARACTERS = 20_000
DARK = ("#5aa9e6", "#ff9355", "#35c79b", "#e8a3cb", "#f6bd45", "#9ad3f5", "#a8aeb5", "#d58bb0")
"""The series' colours on a dark ground, in the order of the light ones."""
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


def write_report(histories: Sequence[History], comparison: dict[str, Any] | None = None) -> Path:
    """Write the report of a run, or the comparison of several into the folder of the first; returns the HTML file.

    Args:
        comparison: the differences between the first run's scores and the others', from `eva_stages.views.comparison`.
    """
    first = histories[0]
    hosts = {host for history in histories for host in hosts_of(history.recipe)}
    privacy = Privacy(first.root, hosts=tuple(sorted(hosts)))
    if len(histories) == 1:
        sections = [
            result(histories),
            *(section for build in SECTIONS if (section := build(first)) is not None),
            provenance(histories, privacy),
        ]
        name, title = REPORT, f"eva report: {first.name}"
    else:
        sections = [result(histories, comparison), differences(histories, privacy), side_by_side(histories), provenance(histories, privacy)]
        name, title = COMPARISON, f"eva comparison: {', '.join(history.name for history in histories)}"
    write_plots(first.root / name, sections, privacy)
    path = first.root / f"{name}.html"
    write_whole(path, page(title, histories, sections, privacy))
    return path


def page(title: str, histories: Sequence[History], sections: Sequence[Section], privacy: Privacy) -> str:
    """The HTML of a run's report."""
    return render(title, [_about(history) for history in histories], sections, privacy, time=moment(utc_now()))


def render(
    title: str,
    about: Sequence[str],
    sections: Sequence[Section],
    privacy: Privacy,
    time: str | None = None,
    question: str = "",
    answer: Sequence[str] = (),
) -> str:
    """The HTML of a page.

    Args:
        about: lines below the heading.
        time: of rendering; None: the page does not contain it.
        question, answer: replace the title as the heading of the page.
    """
    environment = SandboxedEnvironment(
        loader=FileSystemLoader(str(resources.files("hub_cards"))),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "shown": lambda text, limit=TEXT_CHARACTERS: harmless(text, limit),
        "prose": _prose,
        "cell": _cell,
    }
    text = environment.get_template("report.html.jinja").render(
        title=title,
        about=about,
        question=question,
        answer=answer,
        sections=sections,
        light=SERIES,
        dark=DARK,
        made=time,
        recipe_characters=RECIPE_CHARACTERS,
    )
    return privacy.text(text).encode("ascii", "xmlcharrefreplace").decode("ascii")


def _about(history: History) -> str:
    seconds = sum(artifact.manifest["seconds"] for artifact in history.artifacts)
    last_end = max((artifact.manifest["ended"] for artifact in history.artifacts), default="never")
    rounds = len(history.every("train"))
    policies_text = f"{rounds} trained polic{'y' if rounds == 1 else 'ies'}"
    stages_text = f"{len(history.artifacts)} finished stages, the last {moment(last_end)}"
    return f"{history.name}: {stages_text}; {policies_text}; {duration(seconds)} of stage time"


def moment(time: str) -> str:
    """As in 2026-11-24 09:16 UTC; eva writes all times in UTC."""
    return f"{time[:10]} {time[11:16]} UTC" if len(time) > 16 else time


def _prose(text: str) -> Markup:
    """A sentence as HTML, with text between backticks as code."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(harmless(text, SENTENCE_CHARACTERS)))))


def _cell(value: Any) -> str:
    """A table's cell: integers with separators, other numbers with four digits, texts truncated and harmless, nothing for None."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float() if value != value:
            return ""
        case float():
            return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
        case _:
            return harmless(str(value), CELL_CHARACTERS)


def write_plots(folder: Path, sections: Sequence[Section], privacy: Privacy) -> None:
    """Write the plots of a page as files, in place of earlier ones."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for section in sections:
        for plot in section.plots:
            (folder / f"{plot.name}.svg").write_text(privacy.text(plot.svg), encoding="utf-8")
            (folder / f"{plot.name}.png").write_bytes(plot.png)
