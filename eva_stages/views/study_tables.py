"""A study for a terminal of 80 columns, and its runs as CSV."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.text import Text

from eva_stages.core.kinds import BASE
from eva_stages.core.progress import dollars
from eva_stages.core.text_table import Cell, TextTable, as_csv, as_rich
from eva_stages.views.study_runs import DONE_STATE
from eva_stages.views.study_sentences import figure, p_text, signed_figure

NAMES_WIDTH = 20
"""Columns of a terminal of 80 that a contrast's figures leave for its arms."""
CSV_HEADS = ("arm", "seed", "iteration", "generated_tokens", "score", "state")


def study_tables(document: Mapping[str, Any]) -> Group:
    """The answer first, then contrasts, arms, and runs that are not done."""
    tables = [contrast_table(document), arm_table(document)]
    if missing := missing_table(document):
        tables.append(missing)
    return Group(Text(document["question"], style="bold"), *(Text(line) for line in document["answer"]), Text(""), as_rich(tables))


def contrast_table(document: Mapping[str, Any]) -> TextTable:
    heads = ("a - b", "mean", "95 % interval", "p (Holm)", "MDE", "verdict")
    rows = [
        (
            _names_text(entry["a"], entry["b"]),
            "" if entry["mean"] is None else signed_figure(entry["mean"]),
            "" if entry["low"] is None else f"{signed_figure(entry['low'])} {signed_figure(entry['high'])}",
            "" if entry["p_holm"] is None else p_text(entry["p_holm"]),
            "" if entry["detectable_effect"] is None else figure(entry["detectable_effect"]),
            entry["verdict"],
        )
        for entry in document["contrasts"]
    ]
    notes = [note for note in document["notes"][:-1] if note not in document["answer"]]
    if any(entry["detectable_effect"] is not None for entry in document["contrasts"]):
        notes.append("MDE: an effect above it would have been found with 80 % probability")
    return TextTable(f"{document['study']}: contrasts", heads, rows, notes, "LRRRRl")


def arm_table(document: Mapping[str, Any]) -> TextTable:
    """Score and cost of every arm; the last row is the study's cost."""
    rows = [_arm_cells(entry) for entry in document["arms"]]
    total = document["cost"]
    rows.append(("all arms", f"{sum(entry['done'] for entry in document['arms'])}/{len(document['runs'])}", "", "", *_cost_cells(total)))
    heads = ("arm", "done", document["measure"], "tokens", "hours", "GPU-h", "USD")
    return TextTable(
        "arms, mean over seeds ± standard deviation", heads, rows, document["notes"][-1:], "lRRRRRR", frozenset({len(rows) - 1})
    )


def missing_table(document: Mapping[str, Any]) -> TextTable | None:
    """The runs that are not done; None if all are."""
    rows: list[tuple[Cell, ...]] = [
        (entry["arm"], entry["seed"], entry["state"], entry["cause"] or "") for entry in document["runs"] if entry["state"] != DONE_STATE
    ]
    return TextTable("runs that are not done", ("arm", "seed", "state", "cause"), rows, (), "lRLl") if rows else None


def study_csv(document: Mapping[str, Any]) -> str:
    """One row per arm, seed and iteration; a run without a score has one row with its state.

    With a budget of tokens, a row with "budget" as iteration has the score at the budget, which is compared.
    """
    rows: list[tuple[Cell, ...]] = []
    for entry in document["runs"]:
        names = (entry["arm"], entry["seed"])
        points = [(_iteration(point["policy"]), point["generated_tokens"], point["score"]) for point in entry["curve"]]
        if "generated_tokens" in document["budget"] and entry["score"] is not None:
            points.append(("budget", entry["generated_tokens"], entry["score"]))
        rows += [(*names, *point, entry["state"]) for point in points]
        if not points:
            rows.append((*names, None, None, None, entry["state"]))
    return as_csv(TextTable("", CSV_HEADS, rows))


def _iteration(policy: str) -> str:
    return policy if policy == BASE else policy.rpartition(" ")[2]


def _names_text(a: str, b: str) -> str:
    """As in "eva - uniform", on two lines where it is long."""
    text = f"{a} - {b}"
    return text if len(text) <= NAMES_WIDTH else f"{a}\n- {b}"


def _arm_cells(entry: Mapping[str, Any]) -> tuple[Cell, ...]:
    deviation = "" if entry["sd"] is None else f" ± {figure(entry['sd'])}"
    score = "" if entry["mean"] is None else f"{figure(entry['mean'])}{deviation}"
    tokens = "" if entry["generated_tokens"] is None else _token_text(entry["generated_tokens"])
    return entry["arm"], f"{entry['done']}/{entry['runs']}", score, tokens, *_cost_cells(entry["cost"])


def _cost_cells(cost: Mapping[str, Any]) -> tuple[str, str, str]:
    gpu_hours = "" if cost["gpu_hours"] is None else f"{cost['gpu_hours']:.2f}"
    return f"{cost['hours']:.2f}", gpu_hours, dollars(cost["usd"])


def _token_text(tokens: float) -> str:
    """As in 850, 12.5K, 2.0M."""
    for scale, letter in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if tokens >= scale:
            return f"{tokens / scale:.1f}{letter}"
    return f"{tokens:.0f}"
