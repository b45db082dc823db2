"""Cells of an archive: what kind of prompt a prompt is. Each function maps a prompt to the name of its cell."""

import json

from eva_stages.core.rows import Message, last_user_text
from eva_stages.lettercraft.language import parse
from eva_stages.models.task_families import read_task

NO_CELL = "other"
"""Cell of the prompts that a built-in function cannot read."""


def topic_complexity(topic: str, complexity: float) -> str:
    """The topic and the rounded complexity of a prompt, by creator.analysis. Unlike the other functions it takes labels, not a prompt."""
    return f"{topic}, complexity {round(complexity)}"


def lettercraft(messages: list[Message], reference: str | None) -> str:
    """Skill and depth: the last operation of an instruction and the number of its operations."""
    instruction = parse(last_user_text(messages))
    return f"{instruction.operations[-1]}, depth {len(instruction.operations)}" if instruction else NO_CELL


def reasoning_gym(messages: list[Message], reference: str | None) -> str:
    """The family and the values of its knobs; knobs are whole numbers, or bounds of them."""
    if reference is None:
        return NO_CELL
    task = read_task(reference)
    return f"{task.family} {json.dumps(task.knobs, sort_keys=True)}"
