"""The evolve method `turn_knob`: another task of the prompt's family, a step harder, or as hard.

The knobs are the whole numbers among the values that the recipe gives a family. `min_terms` and `max_terms` are one knob, `terms`: equal
bounds move together, of others the upper one moves. A step is a quarter of the value and at least 1. What a step does to the difficulty is
up to the family; knobs that it refuses are a rejection, `impossible_knobs`.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from eva_stages.models.task_families import read_task

HARDER, SIDEWAYS = 0.5, 0.25
"""Probabilities of one knob up, and of one knob up and another one down; else the knobs stay, and the task is new."""
LOWER, UPPER = "min_", "max_"


def turn_knob(reference: str, rng: np.random.Generator) -> tuple[str, str]:
    """(mutation, request to the evolver) for the task in a prompt's reference.

    Raises:
        DataError: if the reference is no task.
    """
    task = read_task(reference)
    names = knob_names(task.knobs)
    draw, order = rng.random(), [str(name) for name in rng.permutation(names)]
    if names and draw < HARDER:
        mutation, knobs = f"harder {order[0]}", turned(task.knobs, order[0], up=True)
    elif len(names) > 1 and draw < HARDER + SIDEWAYS:
        mutation, knobs = f"sideways {order[0]}", turned(turned(task.knobs, order[0], up=True), order[1], up=False)
    else:
        mutation, knobs = "new task", dict(task.knobs)
    return mutation, json.dumps({"family": task.family, "knobs": knobs})


def knob_names(knobs: Mapping[str, Any]) -> list[str]:
    """The knobs that can be turned, in order; two bounds are one knob."""
    numbers = [name for name, value in knobs.items() if type(value) is int]
    return sorted({_pair(knobs, name) or name for name in numbers})


def turned(knobs: Mapping[str, Any], name: str, up: bool) -> dict[str, Any]:
    """The knobs with one of them a step further up or down."""
    lower, upper = LOWER + name, UPPER + name
    if name in knobs:
        return {**knobs, name: _step(knobs[name], up)}
    changes = {upper: _step(knobs[upper], up)}
    if knobs[lower] == knobs[upper] or knobs[lower] > changes[upper]:
        changes[lower] = changes[upper]
    return {**knobs, **changes}


def _pair(knobs: Mapping[str, Any], field: str) -> str | None:
    """The knob of which a field is a bound, if both bounds are given."""
    name = field.removeprefix(LOWER).removeprefix(UPPER)
    return name if all(type(knobs.get(bound + name)) is int for bound in (LOWER, UPPER)) else None


def _step(value: int, up: bool) -> int:
    return value + max(1, abs(value) // 4) if up else value - max(1, abs(value) // 5)
