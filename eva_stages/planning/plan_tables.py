"""The plan for a terminal: every stage, the sums of each iteration, and what is left to do in all."""

from dataclasses import replace
from typing import Any

from rich.console import Group
from rich.filesize import decimal

from eva_stages.core.progress import duration, span
from eva_stages.core.text_table import TextTable, as_rich

HEADS = ("stage", "state", "rows", "tokens in", "out", "at most", "time", "interval", "GPU-h", "disk", "USD")
JUDGING_HEADS = ("benchmark", "judge", "policies", "calls", "tokens in", "tokens out", "USD")
UNKNOWN = "-"


def plan_tables(document: dict[str, Any]) -> Group:
    """The tables of a plan's document; the notes stand below the last one."""
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
    return TextTable(f"{document['recipe']} in {document['run']}", HEADS, rows, alignment="LLrrrrrRrrR", sums=frozenset(sums))


def _stage_row(entry: dict[str, Any]) -> list[str]:
    units = entry["rows"] if entry["steps"] is None else entry["steps"]
    return [entry["stage"], entry["state"], UNKNOWN if units is None else f"{units:,}", *_amounts(entry, "")]


def _sum_row(name: str, sums: dict[str, Any], prefix: str) -> list[str]:
    read, written, most, time, interval, hours, disk, usd = _amounts(sums, prefix)
    if sums["unmeasured"]:  # and so not all of it
        read, written, time, hours, disk = (_at_least(cell) for cell in (read, written, time, hours, disk))
    if sums["unpriced"]:
        usd = _at_least(usd) if sums["usd_expected"] else UNKNOWN
    return [name, f"{sums['stages']}", "", read, written, most, time, interval, hours, disk, usd]


def _at_least(cell: str) -> str:
    return UNKNOWN if cell in (UNKNOWN, "CPU") else f">= {cell}"


def _amounts(entry: dict[str, Any], prefix: str) -> list[str]:
    low, expected, high = (entry[f"{prefix}seconds_{name}"] for name in ("low", "expected", "high"))
    hours = entry["gpu_hours"]
    return [
        *(UNKNOWN if entry[name] is None else f"{entry[name]:,}" for name in ("input_tokens", "output_tokens")),
        f"{entry['tokens']:,}" if entry["tokens"] else "",
        UNKNOWN if expected is None else duration(expected),
        "" if low == high else span(low, high),
        UNKNOWN if hours is None else f"{hours:,.2f}" if hours else "CPU",
        UNKNOWN if entry["bytes"] is None else decimal(int(entry["bytes"])),
        money(entry["usd_expected"], entry["usd"]),
    ]


def money(expected: float | None, most: float | None) -> str:
    if expected is None or most is None:
        return UNKNOWN
    amounts = [f"{amount:,.2f}" if amount < 100 else f"{amount:,.0f}" for amount in (expected, most)]
    return amounts[0] if expected == most else f"{amounts[0]} (<= {amounts[1]})"


def _judging_table(entries: list[dict[str, Any]]) -> TextTable:
    """What judging costs: expected, with the lengths of the official files, and at most."""
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
        f"{todo['stages']} of {len(document['stages'])} stages to do, at most {todo['tokens']:,.0f} generated tokens; rows of train: steps"
    ]
    if document["measured_on"]:
        notes.append(f"measured on {document['measured_on']}; interval: all as fast as the fastest and as slow as the slowest batch")
    if todo["unmeasured"]:
        notes.append(
            f"{todo['unmeasured']} stages not measured ({UNKNOWN}): eva plan RECIPE --measure times them, --rates FILE gives a table"
        )
    if todo["unpriced"]:
        notes.append(f"{todo['unpriced']} stages call a provider and have no price yet: give their tokens in a table with --rates")
    if todo["checkpoint_bytes"]:
        notes.append(f"while training: up to {decimal(todo['checkpoint_bytes'])} of checkpoints besides")
    return notes
