"""What the gate of an iteration passed, and the precision that its audit found."""

from typing import Any

from eva_stages.core.tables import read_table
from eva_stages.core.text_table import count_text
from eva_stages.creator.gate_figures import audit_figures, gate_figures
from eva_stages.creator.gate_questions import TESTS
from eva_stages.views.history import History


def gate_summary(history: History, iteration: int) -> dict[str, Any] | None:
    """The figures of `gate_figures`, and under `audit` those of `audit_figures`; null where a stage is not complete."""
    verdicts = history.find("gate-verdicts", iteration)
    if verdicts is None or verdicts.rows is None:
        return None
    audit = history.find("gate-audit", iteration)
    audit_rows = None if audit is None or audit.rows is None else read_table(audit.content, ["passed", "answerable", "reason"])
    figures = gate_figures(read_table(verdicts.content, [*TESTS, "valid", "reason"]))
    return {**figures, "audit": None if audit_rows is None else audit_figures(audit_rows)}


def gate_text(gate: dict[str, Any]) -> str:
    """The figures in one line."""
    reasons = ", ".join(f"{reason.replace('_', ' ')} {count:,}" for reason, count in gate["left_out"].items())
    parts = [f"gate: {gate['passed']:,} of {count_text(gate['prompts'], 'prompt')} passed; left out: {reasons or 'none'}"]
    if gate["audit"]:
        names = {"precision": "precision", "false_rejections": "valid among those left out"}
        parts += [f"{words} {share_text(gate['audit'][name])}" for name, words in names.items() if gate["audit"][name]]
    return "; audit: ".join([parts[0], ", ".join(parts[1:])] if parts[1:] else parts)


def share_text(share: dict[str, Any] | None) -> str:
    """As in 94 % [84, 98] of 50."""
    return "" if share is None else f"{share['value']:.0%} [{share['low']:.0%}, {share['high']:.0%}] of {share['n']:,}".replace("%", " %")
