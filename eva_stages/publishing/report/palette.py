"""The colours of the plots. A colour means the same in every plot of a page, and the page says what.

Hues of Okabe and Ito's palette, which colour-blind eyes can tell apart; whatever shares a plot also differs in marker or dash. Plots are
drawn in the light colours; in a page every colour is a CSS variable with a light and a dark value.
"""

from collections.abc import Sequence
from typing import Any

from eva_stages.core.kinds import BASE

INK, MUTED_COLOUR, GRID, CARD = "#1c2127", "#59626d", "#d4d9df", "#f6f7f9"
START, EVOLVED, CHOSEN, REJECTED = "#7f7f7f", "#e69f00", "#009e73", "#d55e00"
"""Of the base policy and seed prompts; of evolved prompts; of chosen responses and won games; of rejected responses and lost games."""
ITERATIONS = ("#56b4e9", "#0072b2", "#3b3fa5", "#8a63d2", "#cc79a7", "#882255")
"""Of an iteration and its policy, the base round first."""
ARMS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#882255")
"""Of runs side by side, where nothing else has a colour."""
ColourKey = Sequence[tuple[str, Sequence[str]]]
"""Meanings with their colours."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (6, 1, 1, 1)))
_DARK = {
    "#56b4e9": "#9ad3f5",
    "#0072b2": "#4fa3e8",
    "#3b3fa5": "#8f93f2",
    "#8a63d2": "#c6a9f7",
    "#cc79a7": "#f0b4d4",
    "#882255": "#d0709f",
    START: "#a8aeb5",
    EVOLVED: "#f6bd45",
    CHOSEN: "#35c79b",
    REJECTED: "#ff9355",
}
VARIABLES = {INK: "ink", MUTED_COLOUR: "muted", GRID: "grid", CARD: "card", **{colour: f"c{index}" for index, colour in enumerate(_DARK)}}
LIGHT_VALUES = {VARIABLES[colour]: colour for colour in _DARK}
DARK_VALUES = {VARIABLES[colour]: dark for colour, dark in _DARK.items()}
RUN_KEY = (
    ("base policy, seed prompts", (START,)),
    ("iterations 0, 1, 2, ... and their policies", ITERATIONS),
    ("evolved prompts", (EVOLVED,)),
    ("chosen, won", (CHOSEN,)),
    ("rejected, lost", (REJECTED,)),
)
"""What the colours mean in the report of a run."""


def colour_key(entries: ColourKey) -> list[tuple[str, list[str]]]:
    """Meanings with the CSS variables of their colours."""
    return [(meaning, [VARIABLES[colour] for colour in colours]) for meaning, colours in entries]


def arm_colour(index: int) -> str:
    return ARMS[index % len(ARMS)]


def arm_style(index: int) -> dict[str, Any]:
    """Colour, marker and dash of an arm; arms beyond the last colour differ in marker and dash."""
    place = index + index // len(MARKERS)
    return {"color": arm_colour(index), "marker": MARKERS[place % len(MARKERS)], "linestyle": DASHES[place % len(DASHES)]}


def iteration_colour(iteration: int) -> str:
    """Of an iteration, or of its policy; -1: of the base policy."""
    return START if iteration < 0 else ITERATIONS[iteration % len(ITERATIONS)]


def iteration_style(iteration: int) -> dict[str, Any]:
    """Colour, marker and dash."""
    place = iteration + 1
    return {
        "color": iteration_colour(iteration),
        "marker": MARKERS[place % len(MARKERS)],
        "linestyle": DASHES[max(iteration, 0) % len(DASHES)],
    }


def iteration_of(policy: str) -> int:
    """The iteration of a policy's name, such as "iteration 2"; -1 for the base policy."""
    return -1 if policy == BASE else int(policy.rpartition(" ")[2])
