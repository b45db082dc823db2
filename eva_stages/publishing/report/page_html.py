"""A page as HTML: its contents in the template, and the status of a run that goes.

The page's content security policy forbids loading and scripts; that of a live page allows its own. Texts from data are shortened and made
harmless, then escaped by the template; private values are removed from the complete page at the end. The page is pure ASCII, so no encoding
can break it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2.sandbox import SandboxedEnvironment
from markupsafe import Markup, escape

from eva_stages.core.harmless import harmless
from eva_stages.core.progress import duration
from eva_stages.core.text_table import count_text
from eva_stages.publishing.privacy import Privacy
from eva_stages.publishing.report.palette import DARK_VALUES, LIGHT_VALUES, ColourKey, colour_key
from eva_stages.publishing.report.section_html import Section
from eva_stages.publishing.templates import template_environment
from eva_stages.views.run_status import status_table

TEXT_CHARACTERS = 700
CELL_CHARACTERS = 200
SENTENCE_CHARACTERS = 600
RECIPE_CHARACTERS = 20_000


@dataclass(frozen=True)
class PageContents:
    """What a page says."""

    title: str
    question: str
    """Above the heading."""
    answer: Sequence[str]
    """The first line is the heading."""
    sections: Sequence[Section]
    about: Sequence[str]
    """Lines below the answer."""
    key: ColourKey = ()
    """What the colours of the plots mean."""
    time: str | None = None
    """Of rendering; None: the page does not contain it."""


def render(contents: PageContents, privacy: Privacy, version: str = "", status: str = "") -> str:
    """The HTML of a page.

    Args:
        version, status: of a live page, which a script keeps up to date; see `live.js`.
    """
    text = (
        _environment()
        .get_template("report.html.jinja")
        .render(
            contents=contents,
            light=LIGHT_VALUES,
            dark=DARK_VALUES,
            key=colour_key(contents.key),
            version=version,
            status=Markup(status),
            recipe_characters=RECIPE_CHARACTERS,
        )
    )
    return _ascii(privacy.text(text))


def status_html(document: Mapping[str, Any], privacy: Privacy) -> str:
    """The status of a run (`views.run_status`) as a part of its live page."""
    stages = document["stages"]
    table = status_table(dict(document))
    done_count = sum(entry["state"] == "done" for entry in stages)
    holder, left_seconds = document["locked_by"], document["ledger"]["left_seconds"]
    words = [f"{done_count} of {count_text(len(stages), 'stage')} done"]
    words += ["running" if holder else "complete" if done_count == len(stages) else "not running"]
    words += [f"about {duration(left_seconds)} left"] if holder and left_seconds else []
    current_rows = [row for row, entry in zip(table.rows, stages, strict=True) if entry["state"] in ("running", "failed", "unfinished")]
    failures = [f"{entry['stage']} failed: {entry['cause']}" for entry in stages if entry["state"] == "failed"]
    text = (
        _environment()
        .get_template("status.html.jinja")
        .render(
            summary=", ".join(words), done=done_count, total=max(len(stages), 1), failures=failures, table=table, current_rows=current_rows
        )
    )
    return _ascii(privacy.text(text))


def _environment() -> SandboxedEnvironment:
    environment = template_environment()
    environment.filters |= {
        "shown": lambda text, limit=TEXT_CHARACTERS: harmless(text, limit),
        "prose": _prose,
        "cell": _cell,
    }
    return environment


def _ascii(text: str) -> str:
    return text.encode("ascii", "xmlcharrefreplace").decode("ascii")


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
