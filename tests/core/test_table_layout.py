"""Tables fit any terminal: numbers are never cut, texts wrap, and columns are left out or continue below."""

import io
import re

import pytest

from eva_stages.core.terminal import Terminal
from eva_stages.core.text_table import TextTable, as_rich

SCORES = TextTable(
    "scores",
    ("policy", "sampled reward", "greedy reward", "gain", "win rate", "judge"),
    [
        ("base", "0.504 [0.347, 0.657]", "0.748 [0.576, 0.890]", "", "", ""),
        ("iteration 1", "0.530 [0.383, 0.680]", "0.748 [0.576, 0.890]", "0.026 [-0.125, 0.178]", "0.500 [0.354, 0.646]", ""),
    ],
    alignment="Lrrrrl",
)
CATEGORIES = TextTable("by category", ("model", *(f"category {number}" for number in range(8))), [("a model", *[7.25] * 8)])
PLAN = TextTable(
    "plan",
    ("stage", "rows", "interval", "disk", "USD"),
    [("0-respond", "1,234,567", "4.8-5.2 min", "505 bytes", "0.68 (<= 1.20)")],
    alignment="LrRrr",
    optional=("disk", "interval"),
)
STATES = TextTable("states", ("stage", "state"), [("0-train", "failed: " + "a long cause " * 20), ("0-pair", "done")], alignment="Ll")


def text_of(table: TextTable, width: int, **settings: object) -> str:
    terminal = Terminal(file=io.StringIO(), width=width, **settings)
    terminal.print(as_rich([table]))
    return terminal.file.getvalue()


@pytest.mark.parametrize("table", [SCORES, CATEGORIES, PLAN, STATES], ids=lambda table: table.title)
@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_a_table_fits_its_terminal_and_cuts_no_number(table: TextTable, width: int) -> None:
    text = text_of(table, width)
    assert max(map(len, text.splitlines())) <= width
    hidden_heads = text.partition("not shown: ")[2].partition(";")[0].split(", ")
    assert set(hidden_heads) - {""} <= set(table.optional)
    numbers = [
        number
        for row in table.rows
        for head, cell in zip(table.heads, row, strict=True)
        if cell and head not in hidden_heads
        for number in re.findall(r"[\d.,]*\d", f"{cell:.2f}" if isinstance(cell, float) else cell)
    ]
    assert all(re.search(rf"(?<![\d.,]){re.escape(number)}(?!\d)", text) for number in numbers)


def test_intervals_break_before_their_bracket_and_all_of_a_table_alike() -> None:
    lines = text_of(SCORES, 80).splitlines()
    assert "judge" not in lines[2] and lines[-1].split() == [
        "[0.383,",
        "0.680]",
        "[0.576,",
        "0.890]",
        "[-0.125,",
        "0.178]",
        "[0.354,",
        "0.646]",
    ]


def test_a_narrow_terminal_names_what_it_leaves_out() -> None:
    assert "not shown: disk;" in text_of(PLAN, 50)
    assert "not shown" not in text_of(PLAN, 80)


def test_columns_without_a_place_continue_below_with_the_name_of_the_row() -> None:
    text = text_of(CATEGORIES, 60)
    assert (text.count("a model"), text.count("7.25"), "not shown" in text) == (2, 8, False)


def test_a_table_without_rows_is_its_notes() -> None:
    assert text_of(TextTable("garbage", ("path", "bytes"), [], ["nothing to delete"]), 80).splitlines() == ["garbage", "nothing to delete"]


def test_states_have_colours_unless_the_environment_forbids_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1;31mfailed" in text_of(STATES, 80, force_terminal=True) and "\x1b[32mdone" in text_of(STATES, 80, force_terminal=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[\d;]*3\dm", text_of(STATES, 80, force_terminal=True))
