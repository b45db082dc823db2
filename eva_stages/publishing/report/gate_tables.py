"""The gate in the report: shares per test, and the precision that the audit found."""

from typing import Any

from eva_stages.publishing.report.section_html import Cell, Table
from eva_stages.views.gate_summary import gate_summary, share_text
from eva_stages.views.history import History


def gate_tables(history: History) -> list[Table]:
    """None where the recipe has no gate, or no iteration came to it."""
    gates = {iteration: gate for iteration in history.iterations if (gate := gate_summary(history, iteration))}
    tests = list(dict.fromkeys(test for gate in gates.values() for test in gate["tests"]))
    rows: list[list[Cell]] = [
        [iteration, gate["prompts"], gate["passed"], gate["no_verdict"], *(share_text(gate["tests"].get(test)) for test in tests)]
        for iteration, gate in gates.items()
    ]
    heads = ["iteration", "evolved prompts", "passed", "no verdict", *(test.replace("_", " ") for test in tests)]
    note = (
        "Per test: share that passed of the prompts that came to it, with Wilson's 95 % interval. A prompt without a verdict is left out."
    )
    audits = {iteration: gate["audit"] for iteration, gate in gates.items() if gate["audit"]}
    return [
        *([Table("Gate", heads, rows, note)] if rows else []),
        *([Table("Audit of the gate", AUDIT_HEADS, [_audit_row(*entry) for entry in audits.items()], AUDIT_NOTE)] if audits else []),
    ]


AUDIT_HEADS = ["iteration", "precision", "valid among those left out", "not agreed", "no verdict"]
AUDIT_NOTE = (
    "Precision: share of a random sample of the prompts that passed which the audit finds valid. The second sample is of prompts that were "
    "left out as too long, repetitive or not answerable. Where the auditing judge's two replies differ, a prompt counts as not valid."
)


def _audit_row(iteration: int, audit: dict[str, Any]) -> list[Cell]:
    shares = [share_text(audit[name]) for name in ("precision", "false_rejections")]
    return [iteration, *shares, audit["not_agreed"], audit["no_verdict"]]
