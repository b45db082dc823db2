"""The plan for a terminal: every stage, the sums of each iteration, and what is left to do in all."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from eva_stages.core.progress import duration, size, span

HEADS = ("stage", "state", "rows", "tokens in", "out", "at most", "time", "interval", "GPU-h", "disk", "USD")
UNKNOWN = "-"


def plan_tables(document: dict[str, Any]) -> Group:
    """The tables of a plan's document."""
    shown: list[Any] = [_stage_table(document)]
    if document["judging"]:
        shown.append(_judging_table(document["judging"]))
    return Group(*shown, *(Text(note) for note in _notes(document)))


def _stage_table(document: dict[str, Any]) -> Table:
    table = Table(title=Text(f"{document['recipe']} in {document['run']}"), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index, head in enumerate(HEADS):
        table.add_column(head, justify="left" if index < 2 else "right", no_wrap=head in ("stage", "state", "interval", "USD"))
    for one in document["iterations"]:
        entries = [entry for entry in document["stages"] if entry["iteration"] == one["iteration"]]
        for index, entry in enumerate(entries):
            table.add_row(*_stage_row(entry), end_section=index == len(entries) - 1)
        if one["stages"]:
            table.add_row(*_sum_row(f"iteration {one['iteration']}", one, ""), style="bold", end_section=True)
    table.add_row(*_sum_row("all to do", document["to_do"], "wall_"), style="bold")
    return table


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
        UNKNOWN if entry["bytes"] is None else size(entry["bytes"]),
        money(entry["usd_expected"], entry["usd"]),
    ]


def money(expected: float | None, most: float | None) -> str:
    if expected is None or most is None:
        return UNKNOWN
    told = [f"{amount:,.2f}" if amount < 100 else f"{amount:,.0f}" for amount in (expected, most)]
    return told[0] if expected == most else f"{told[0]} (<= {told[1]})"


def _judging_table(entries: list[dict[str, Any]]) -> Table:
    """What judging costs: expected, as in the official files, and at most."""
    table = Table(title="judging to do: expected (at most)", title_justify="left")
    for column in ("benchmark", "judge", "policies", "calls", "tokens in", "tokens out", "USD"):
        table.add_column(column, justify="left" if column in ("benchmark", "judge") else "right")
    for entry in entries:
        tokens = [f"{entry[f'expected_{name}']:,} (<= {entry[name]:,})" for name in ("input_tokens", "output_tokens")]
        cost = money(entry["expected_usd"], entry["usd"])
        known = "no price known" if cost == UNKNOWN else cost
        table.add_row(entry["benchmark"], entry["judge"], str(entry["policies"]), f"{entry['calls']:,}", *tokens, known)
    return table


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
        notes.append(f"while training: up to {size(todo['checkpoint_bytes'])} of checkpoints besides")
    return notes
