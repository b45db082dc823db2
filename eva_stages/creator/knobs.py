"""The evolve method `turn_knob`: another task of the prompt's family, a step harder, or as hard.

The knobs are the whole numbers among the values that the recipe gives a family. `min_terms` and `max_terms` are one knob, `terms`: equal
bounds move together, of others the upper one moves. A step up is a quarter of the value, a step down a fifth, and both are at least 1.
What a step does to the difficulty is up to the family; knobs that it refuses are a rejection, `impossible_knobs`.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from eva_stages.models.task_families import read_task

HARDER, SIDEWAYS = 0.5, 0.25
"""Probabilities of one knob up, and of one knob up and another one down; else the knobs stay, and the task is new."""
LOWER, UPPER = "min_", "max_"
OF_REFERENCES = ("turn_knob",)
"""Methods that get the prompt's reference in place of its text; the evolver replies with a prompt and its own reference."""


def turn_knob(reference: str, rng: np.random.Generator) -> tuple[str, str]:
    """(mutation, request to the evolver) for the task in a prompt's reference.

    Raises:
        DataError: if the reference is no task.
    """
    task = read_task(reference)
    names = knob_names(task.knobs)
    draw, order = rng.random(), [str(name) for name in rng.permutation(names)]
    if names and draw < HARDER:
        mutation, knobs = f"harder {order[0]}", turned_knobs(task.knobs, order[0], 1)
    elif len(names) > 1 and draw < HARDER + SIDEWAYS:
        mutation, knobs = f"sideways {order[0]}", turned_knobs(turned_knobs(task.knobs, order[0], 1), order[1], -1)
    else:
        mutation, knobs = "new task", dict(task.knobs)
    return mutation, json.dumps({"family": task.family, "knobs": knobs})


def knob_names(knobs: Mapping[str, Any]) -> list[str]:
    """The knobs that can be turned, in order; two bounds are one knob."""
    numbers = [name for name, value in knobs.items() if type(value) is int]
    return sorted({_pair(knobs, name) or name for name in numbers})


def turned_knobs(knobs: Mapping[str, Any], name: str, direction: int) -> dict[str, Any]:
    """The knobs with one of them a step further up (direction 1) or down (-1)."""
    lower, upper = LOWER + name, UPPER + name
    if name in knobs:
        return {**knobs, name: _next_value(knobs[name], direction)}
    changes = {upper: _next_value(knobs[upper], direction)}
    if knobs[lower] == knobs[upper] or knobs[lower] > changes[upper]:
        changes[lower] = changes[upper]
    return {**knobs, **changes}


def _pair(knobs: Mapping[str, Any], field: str) -> str | None:
    """The knob of which a field is a bound, if both bounds are given."""
    name = field.removeprefix(LOWER).removeprefix(UPPER)
    return name if all(type(knobs.get(prefix + name)) is int for prefix in (LOWER, UPPER)) else None


def _next_value(value: int, direction: int) -> int:
    return value + direction * max(1, abs(value) // (4 if direction > 0 else 5))
