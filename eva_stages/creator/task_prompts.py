"""Seed prompts and benchmark questions from reasoning-gym's families, in equal numbers, each with its task as reference."""

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

import pyarrow as pa

from eva_stages.core.errors import DataError
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.rows import SCHEMAS, Message, prompt_row
from eva_stages.core.runner import Context
from eva_stages.core.tables import write_rows
from eva_stages.models.task_families import BENCHMARK, TRAINING, Knobs, Side, draw_task

Families = Mapping[str, Knobs]
SOURCE = "reasoning-gym"
MOST_REPEATS = 500
"""Repeated tasks of a family in a row after which it counts as exhausted."""


def load_tasks(
    context: Context, families: Families, demonstrations: int, seed: int, size: int, package: str, part: int = 0
) -> dict[str, Any]:
    """Write seed prompts, or the `part`-th set of `size` prompts after them in the same sequence.

    Args:
        package: version of reasoning-gym, which decides the tasks.
    """
    rows = seed_rows(families, demonstrations, seed, size * (part + 1))[size * part :]
    write_rows([pa.Table.from_pylist(rows, schema=SCHEMAS["prompts"])], SCHEMAS["prompts"], context.artifact)
    return {"counts": {}}


def load_task_questions(context: Context, families: Families, demonstrations: int, size: int, package: str) -> dict[str, Any]:
    """Write a benchmark's questions, the same in every run; `package` as in `load_tasks`."""
    rows = task_questions(families, demonstrations, size)
    write_rows([pa.Table.from_pylist(rows, schema=SCHEMAS["prompts"])], SCHEMAS["prompts"], context.artifact)
    return {"counts": {}}


def seed_rows(families: Families, demonstrations: int, seed: int, size: int) -> list[dict[str, Any]]:
    """`size` different seed prompts, as `_task_rows`."""
    return _task_rows(families, demonstrations, derive_seed(seed, SOURCE), size, TRAINING)


def task_questions(families: Families, demonstrations: int, size: int) -> list[dict[str, Any]]:
    """`size` different held-out questions, as `_task_rows`."""
    return _task_rows(families, demonstrations, derive_seed(SOURCE, "benchmark"), size, BENCHMARK)


def _task_rows(families: Families, demonstrations: int, seed: int, size: int, side: Side) -> list[dict[str, Any]]:
    """Different prompts of the families in turn; a longer list begins with the shorter one.

    Raises:
        DataError: as `draw_task`, or if a family has fewer different tasks.
    """
    sources = []
    for name, knobs in families.items():
        turns = demonstration_turns(name, knobs, demonstrations)
        sources.append(_different_rows(name, knobs, turns, derive_seed(seed, name), side))
    return [next(sources[number % len(sources)]) for number in range(size)]


def demonstration_turns(family: str, knobs: Knobs, size: int) -> list[Message]:
    """Solved tasks of a family as turns, the same in every run. They may be among the seed prompts, and never among held-out questions."""
    tasks = [draw_task(family, knobs, derive_seed(SOURCE, "demonstration", family, number)) for number in range(size)]
    return [turn for text, task in tasks for turn in ({"role": "user", "content": text}, {"role": "assistant", "content": task.answer})]


def _different_rows(family: str, knobs: Knobs, turns: list[Message], seed: int, side: Side) -> Iterator[dict[str, Any]]:
    ids: set[str] = set()
    repeats = 0
    for number in count():
        question, task = draw_task(family, knobs, derive_seed(seed, number), side)
        row = prompt_row([*turns, {"role": "user", "content": question}], SOURCE, reference=str(task))
        repeats = repeats + 1 if row["prompt_id"] in ids else 0
        if repeats > MOST_REPEATS:
            raise DataError(f"{family} has only {len(ids)} tasks with the knobs {dict(knobs)}; take fewer prompts or other knobs")
        if not repeats:
            ids.add(row["prompt_id"])
            yield row
