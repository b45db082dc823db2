"""The plan for a terminal: every stage, the sums of each iteration, and the total of all stages to do."""

from collections import Counter
from dataclasses import replace
from typing import Any

from rich.console import Group
from rich.filesize import decimal

from eva_stages.core.progress import dollars, duration, facts, span
from eva_stages.core.text_table import TextTable, as_rich

OPTIONAL_HEADS = ("disk", "interval", "at most", "tokens in")
HEADS = ("stage", "state", "rows", "tokens in", "out", "at most", "time", "interval", "GPU-h", "disk", "USD")
JUDGING_HEADS = ("benchmark", "judge", "policies", "calls", "tokens in", "tokens out", "USD")
UNKNOWN = "-"


def plan_tables(document: dict[str, Any]) -> Group:
    """The tables of a plan's document; the notes are below the last one."""
    tables = [_stage_table(document), *([_judging_table(document["judging"])] if document["judging"] else [])]
    return as_rich([*tables[:-1], replace(tables[-1], notes=_notes(document))])


def _stage_table(document: dict[str, Any]) -> TextTable:
    rows: list[list[str]] = []
    sums: set[int] = set()
    for iteration in document["iterations"]:
        rows += [_stage_row(entry) for entry in document["stages"] if entry["iteration"] == iteration["iteration"]]
        if iteration["stages"]:
            sums.add(len(rows))
            rows.append(_sum_row(f"iteration {iteration['iteration']}", iteration, ""))
    sums.add(len(rows))
    rows.append(_sum_row("all to do", document["to_do"], "wall_"))
    return TextTable(
        f"{document['recipe']} in {document['run']}", HEADS, rows, alignment="LLrrrrrRrrr", sums=frozenset(sums), optional=OPTIONAL_HEADS
    )


def _stage_row(entry: dict[str, Any]) -> list[str]:
    units = entry["rows"] if entry["steps"] is None else entry["steps"]
    return [entry["stage"], entry["state"], UNKNOWN if units is None else f"{units:,}", *_amounts(entry, "")]


def _sum_row(name: str, sums: dict[str, Any], prefix: str) -> list[str]:
    tokens_in, tokens_out, token_limit, time, interval, hours, disk, usd = _amounts(sums, prefix)
    if sums["unmeasured"]:  # the sums are lower bounds
        tokens_in, tokens_out, time, hours, disk = (_lower_bound(cell) for cell in (tokens_in, tokens_out, time, hours, disk))
    if sums["unpriced"]:
        usd = _lower_bound(usd) if sums["usd_expected"] else UNKNOWN
    return [name, f"{sums['stages']}", "", tokens_in, tokens_out, token_limit, time, interval, hours, disk, usd]


def _lower_bound(cell: str) -> str:
    return UNKNOWN if cell in (UNKNOWN, "CPU") else f">= {cell}"


def _amounts(entry: dict[str, Any], prefix: str) -> list[str]:
    low, seconds, high = (entry[f"{prefix}seconds_{name}"] for name in ("low", "expected", "high"))
    hours = entry["gpu_hours"]
    return [
        *(UNKNOWN if entry[name] is None else f"{entry[name]:,}" for name in ("input_tokens", "output_tokens")),
        f"{entry['tokens']:,}" if entry["tokens"] else "",
        UNKNOWN if seconds is None else duration(seconds),
        "" if low == high else span(low, high),
        UNKNOWN if hours is None else f"{hours:,.2f}" if hours else "CPU",
        UNKNOWN if entry["bytes"] is None else decimal(int(entry["bytes"])),
        money(entry["usd_expected"], entry["usd"]),
    ]


def money(expected_usd: float | None, most_usd: float | None) -> str:
    if expected_usd is None or most_usd is None:
        return UNKNOWN
    amounts = [dollars(amount) for amount in (expected_usd, most_usd)]
    return amounts[0] if expected_usd == most_usd else f"{amounts[0]} (<= {amounts[1]})"


def _judging_table(entries: list[dict[str, Any]]) -> TextTable:
    """The cost of judging: expected, with lengths as in the official files, and at most."""
    rows = []
    for entry in entries:
        tokens = [f"{entry[f'expected_{name}']:,} (<= {entry[name]:,})" for name in ("input_tokens", "output_tokens")]
        cost = money(entry["expected_usd"], entry["usd"])
        price = "no price known" if cost == UNKNOWN else cost
        rows.append([entry["benchmark"], entry["judge"], str(entry["policies"]), f"{entry['calls']:,}", *tokens, price])
    return TextTable("judging to do: expected (at most)", JUDGING_HEADS, rows, alignment="llrrrrr")


def _notes(document: dict[str, Any]) -> list[str]:
    todo = document["to_do"]
    notes = [
        f"{todo['stages']} of {len(document['stages'])} stages to do, at most {todo['tokens']:,.0f} generated tokens; train counts steps"
    ]
    if document["measured_on"]:
        notes.append(f"measured on {document['measured_on']}; interval: every batch as fast as the fastest, as slow as the slowest")
    if todo["unmeasured"]:
        notes.append(
            f"{todo['unmeasured']} stages are not measured ({UNKNOWN}); run eva plan RECIPE --measure, or give a table with --rates FILE. "
            "--measure leaves out calls to providers, the stages after them, and benchmarks"
        )
    if todo["unpriced"]:
        notes.append(
            f"{todo['unpriced']} stages call a provider, and their cost is not predicted ({UNKNOWN}); give their tokens in a table with "
            "--rates FILE, and a price where LiteLLM knows none"
        )
    if calls := _call_counts(document):
        notes.append(f"calls during training, at most: {facts(calls)}")
    if todo["checkpoint_bytes"]:
        notes.append(f"during training: up to {decimal(todo['checkpoint_bytes'])} of additional checkpoints")
    return notes


def _call_counts(document: dict[str, Any]) -> Counter[str]:
    """Calls of the online trainings to do, by what they are for."""
    counts: Counter[str] = Counter()
    for entry in document["stages"]:
        counts.update(entry.get("calls", {}) if entry["state"] == "to do" else {})
    return counts
