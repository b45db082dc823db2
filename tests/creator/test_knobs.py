"""Turning knobs and carrying references, without reasoning-gym; `tests/real/test_task_families.py` has the tests with it."""

import json
from collections.abc import Sequence

import numpy as np
import pytest

from eva_stages.core.errors import DataError
from eva_stages.core.generating import GeneratorOutput, SeededLLM, generator_output
from eva_stages.core.rows import Message, prompt_row
from eva_stages.creator.evolving import EvolvePrompts
from eva_stages.creator.knobs import knob_names, turn_knob, turned_knobs
from eva_stages.creator.rejecting import read_prompt_and_reference
from eva_stages.models.task_evolver import IMPOSSIBLE
from eva_stages.models.task_families import Task, read_task

KNOBS = {"min_terms": 2, "max_terms": 2, "max_digits": 5, "allow_negation": False, "min_value": 1, "max_value": 9}


def test_two_bounds_are_one_knob_and_only_whole_numbers_are_knobs() -> None:
    assert knob_names(KNOBS) == ["max_digits", "terms", "value"]


@pytest.mark.parametrize(
    ("name", "direction", "changes"),
    [
        ("terms", 1, {"min_terms": 3, "max_terms": 3}),
        ("terms", -1, {"min_terms": 1, "max_terms": 1}),
        ("max_digits", 1, {"max_digits": 6}),
        ("value", 1, {"max_value": 11}),
        ("value", -1, {"max_value": 8}),
    ],
)
def test_a_turn_changes_one_knob_by_a_step(name: str, direction: int, changes: dict[str, int]) -> None:
    assert turned_knobs(KNOBS, name, direction) == {**KNOBS, **changes}


def test_the_moves_are_harder_sideways_and_a_new_task() -> None:
    reference = str(Task("sums", KNOBS, 3, "7"))
    mutations = []
    for seed in range(400):
        mutation, request = turn_knob(reference, np.random.default_rng(seed))
        knobs = json.loads(request)["knobs"]
        mutations.append(mutation.split()[0])
        turns = {name for name in knob_names(KNOBS) if any(knobs[field] != KNOBS[field] for field in KNOBS if field.endswith(name))}
        assert len(turns) == {"harder": 1, "sideways": 2, "new": 0}[mutations[-1]]
    assert 160 < mutations.count("harder") < 240 and 70 < mutations.count("sideways") < 130


def test_a_family_without_knobs_gives_new_tasks() -> None:
    requests = {turn_knob(str(Task("sums", {}, 3, "7")), np.random.default_rng(seed)) for seed in range(20)}
    assert requests == {("new task", '{"family": "sums", "knobs": {}}')}


@pytest.mark.parametrize("reference", [None, "", "72", "[]", '{"family": "sums"}', '{"family": 1, "knobs": {}, "seed": 1, "answer": "1"}'])
def test_a_reference_that_is_no_task_is_an_error(reference: str | None) -> None:
    with pytest.raises(DataError, match="is not a reasoning-gym task"):
        read_task(reference)


def test_a_reply_has_a_prompt_and_its_reference_or_no_prompt() -> None:
    assert read_prompt_and_reference('{"prompt": " 1 + 2 = ", "reference": "r"}') == ("1 + 2 =", "r")
    for reply in (None, "1 + 2 =", '{"prompt": "1 + 2 ="}', '{"prompt": "1 + 2 =", "reference": null}', "[" * 100_000):
        assert read_prompt_and_reference(reply) == ("", None)


class SumEvolver(SeededLLM):
    """Makes sums of as many terms as it is asked for; none of more than five."""

    @property
    def model_name(self) -> str:
        return "sums"

    def generate(self, inputs: list[list[Message]], num_generations: int = 1, seeds: Sequence[int] | None = None) -> list[GeneratorOutput]:
        assert seeds is not None
        return [self._reply(json.loads(messages[-1]["content"]), seed) for messages, seed in zip(inputs, seeds, strict=True)]

    def _reply(self, request: dict, seed: int) -> GeneratorOutput:
        if request["knobs"]["terms"] > 5:
            return generator_output([""], [IMPOSSIBLE], 0, [0])
        question, answer = sum_of(request["knobs"]["terms"], seed)
        task = Task("sums", request["knobs"], seed, answer)
        return generator_output([json.dumps({"prompt": question, "reference": str(task)})], ["stop"], 0, [0])


def sum_of(terms: int, seed: int) -> tuple[str, str]:
    numbers = np.random.default_rng(seed).integers(1000, size=terms)
    return f"What is {' + '.join(map(str, numbers))}?", str(numbers.sum())


@pytest.mark.parametrize("shape", ["chain", "siblings"])
def test_no_reference_is_lost_or_mixed_up_over_generations(shape: str) -> None:
    turns = [{"role": "user", "content": "What is 1 + 1?"}, {"role": "assistant", "content": "2"}]
    inputs = []
    for seed in range(50):
        question, answer = sum_of(2, seed)
        reference = str(Task("sums", {"terms": 2}, seed, answer))
        inputs.append(prompt_row([*turns, {"role": "user", "content": question}], "test", reference=reference))
    step = EvolvePrompts(name="evolve", llm=SumEvolver(), method="turn_knob", generations=8, shape=shape)
    step.load()
    rows = next(step.process(inputs))
    impossible_rows = [row for row in rows if row["rejected"]]
    assert len(rows) == 400 and {row["rejected"] for row in rows} == ({None, IMPOSSIBLE} if shape == "chain" else {None})
    assert all(row["reference"] is None and row["failure"] is None for row in impossible_rows)
    references = {row["prompt_id"]: row["reference"] for row in [*inputs, *rows] if row["reference"]}
    for row in rows:
        if row["rejected"] is None:
            task = read_task(row["reference"])
            assert row["messages"] == [*turns, {"role": "user", "content": sum_of(task.knobs["terms"], task.seed)[0]}]
            assert task.answer == sum_of(task.knobs["terms"], task.seed)[1]
            parent = read_task(references[row["parent_id"]])
            assert task.knobs["terms"] - parent.knobs["terms"] == int(row["mutation"].startswith("harder"))


def test_a_prompt_without_a_reference_fails_with_the_reason() -> None:
    step = EvolvePrompts(name="evolve", llm=SumEvolver(), method="turn_knob", generations=2)
    step.load()
    (row,) = next(step.process([prompt_row([{"role": "user", "content": "What is 1 + 1?"}], "test")]))
    assert "is not a reasoning-gym task" in row["failure"] and row["rejected"] == "failed"
