"""Tasks of reasoning-gym: a family, the values of its knobs and a seed make a question, and the family scores responses to it.

The reference of a prompt is the task itself, as JSON. Scoring rebuilds the task from it and compares it with the prompt, so a reference
that belongs to another prompt, or that another version of reasoning-gym wrote, gives no score instead of a wrong one.

One task of `HELD_OUT_SHARE`, chosen by the hash of its question, is only for benchmarks; seed prompts and evolutions are the others. So no
benchmark contains a training prompt, whatever its size and however the knobs were turned.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

from eva_stages.core.decoding import short
from eva_stages.core.errors import DataError
from eva_stages.core.failures import error_reason
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.rows import Message, last_user_text, normalise, prompt_id

Knobs = Mapping[str, Any]
"""Fields of the family's configuration with their values."""
INSTALL = "pip install 'eva-align[reasoning]'"
Side = Literal["training", "benchmarks"]
TRAINING: Side = "training"
BENCHMARK: Side = "benchmarks"
HELD_OUT_SHARE = 8
RUNS_CODE = (
    *("binary_matrix", "codeio", "countdown", "intermediate_integration", "n_queens", "polynomial_multiplication", "puzzle24"),
    *("simple_integration", "spiral_matrix", "string_insertion"),
)
"""Families that run text as Python code: reasoning-gym evaluates the response to score it (`codeio`: code in its data)."""
VARIABLE = ("isomorphic_strings", "knight_swap", "list_functions", "ransom_note", "word_ladder")
"""Families whose task also depends on the order of a set, which differs between processes."""
REFUSED_FAMILIES = {
    **dict.fromkeys(RUNS_CODE, "reasoning-gym runs responses to its tasks as Python code"),
    **dict.fromkeys(VARIABLE, "its tasks cannot be rebuilt in another process"),
}
"""Families of reasoning-gym 0.1.25 that are not allowed, and the reasons."""
DRAWS = 200
"""Seeds that are tried for a task outside, or inside, of the held-out share."""


class ImpossibleTaskError(DataError):
    """A family makes no task with the given knobs."""


class Task(NamedTuple):
    """What makes a task again, with the answer by which a reader recognises it."""

    family: str
    knobs: Knobs
    seed: int
    answer: str

    def __str__(self) -> str:
        """The reference of the task's prompt."""
        return json.dumps(self._asdict(), sort_keys=True, ensure_ascii=False)


def read_task(reference: str | None) -> Task:
    """The task in a prompt's reference.

    Raises:
        DataError: if there is none.
    """
    try:
        task = Task(**json.loads(reference or "null"))
    except (TypeError, ValueError, RecursionError):
        raise DataError(f"the reference {short(reference)} is not a reasoning-gym task") from None
    if not (isinstance(task.family, str) and isinstance(task.knobs, dict) and type(task.seed) is int and isinstance(task.answer, str)):
        raise DataError(f"the reference {short(reference)} is not a reasoning-gym task")
    return task


def draw_task(family: str, knobs: Knobs, seed: int, side: Side = TRAINING) -> tuple[str, Task]:
    """(question, task): a function of the arguments alone.

    Args:
        side: draw a task for training, or one that is only for benchmarks.

    Raises:
        ImpossibleTaskError: if the family makes no task with these knobs, or none of `DRAWS` tasks is in the wanted share.
        DataError: as `build`.
    """
    for number in range(DRAWS):
        task_seed = derive_seed(seed, number) % 2**31
        _, entry = build(family, knobs, task_seed)
        question, answer = entry["question"], entry["answer"]
        if not isinstance(question, str) or not isinstance(answer, str):
            raise ImpossibleTaskError(f"{family}: its question or its answer is not a text, but {short(question)} and {short(answer)}")
        if side_of(question) == side:
            return question, Task(family, dict(knobs), task_seed, answer)
    raise ImpossibleTaskError(f"{family}: none of {DRAWS} tasks with the knobs {dict(knobs)} is for {side}; the knobs allow too few tasks")


def side_of(question: str) -> Side:
    """Whether the task with this question is for training or for benchmarks."""
    number = int(prompt_id([{"role": "user", "content": question}])[:8], 16)
    return BENCHMARK if number % HELD_OUT_SHARE == 0 else TRAINING


def build(family: str, knobs: Knobs, seed: int) -> tuple[Any, dict[str, Any]]:
    """reasoning-gym's data set of this single task, and its entry.

    Raises:
        ImpossibleTaskError: if the family refuses the knobs.
        DataError: if reasoning-gym is missing, or does not know the family, or the family is not allowed.
    """
    try:
        from reasoning_gym.factory import DATASETS, create_dataset
    except ImportError:
        raise DataError(f"tasks of reasoning-gym need the package reasoning-gym: {INSTALL}") from None
    if family not in DATASETS:
        raise DataError(f"{family} is not a family of reasoning-gym; known: {', '.join(sorted(DATASETS.keys() - REFUSED_FAMILIES.keys()))}")
    if reason := REFUSED_FAMILIES.get(family):
        raise DataError(f"{family} is not allowed, because {reason}; take another family")
    try:
        dataset = create_dataset(family, **knobs, seed=seed, size=1)
        return dataset, dataset[0]
    except Exception as error:
        raise ImpossibleTaskError(f"{family} makes no task with the knobs {dict(knobs)}: {error_reason(error)}") from error


@lru_cache(maxsize=1024)
def _rebuilt(reference: str) -> tuple[Any, dict[str, Any]]:
    """The data set and the entry of a reference; the n responses to a prompt share them."""
    task = read_task(reference)
    dataset, entry = build(task.family, task.knobs, task.seed)
    if entry["answer"] != task.answer:
        answers = f"{short(entry['answer'])}, not {short(task.answer)}"
        raise DataError(
            f"{task.family} of the installed reasoning-gym makes another task of the reference: its answer is {answers}; install the "
            "version that made the prompts"
        )
    return dataset, entry


def confirms(messages: list[Message], reference: str | None) -> bool:
    """Whether the reference is a task that the installed reasoning-gym makes again, and the prompt is its question.

    Raises:
        DataError: if reasoning-gym is not installed.
    """
    if find_spec("reasoning_gym") is None:
        raise DataError(f"tasks of reasoning-gym need the package reasoning-gym: {INSTALL}")
    try:
        task = read_task(reference)
        _, entry = build(task.family, task.knobs, task.seed)
    except DataError:
        return False
    return entry["answer"] == task.answer and normalise(entry["question"]) == normalise(last_user_text(messages))


def reasoning_gym(messages: list[Message], response: str, reference: str | None) -> float:
    """The verifier `reasoning_gym`: the family's own score of a response, from 0 to 1; 1 is a correct answer and nothing else.

    Raises:
        DataError: if the reference is no task, or not the one of this prompt.
    """
    dataset, entry = _rebuilt(str(reference))
    if normalise(entry["question"]) != normalise(last_user_text(messages)):
        raise DataError("the reference belongs to another prompt")
    return float(dataset.score_answer(response.strip(), entry))
