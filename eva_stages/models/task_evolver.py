"""The evolver of procedural tasks: it makes the tasks that the method `turn_knob` describes, and returns prompt and reference."""

import json
from collections.abc import Sequence

from eva_stages.core.generating import GeneratorOutput, SeededLLM, generator_output
from eva_stages.core.rows import Message
from eva_stages.models.task_families import ImpossibleTaskError, draw_task

IMPOSSIBLE = "impossible_knobs"
"""Finish reason where the family makes no task with the knobs."""


class TaskEvolver(SeededLLM):
    """Replies to a family and its knobs with a new task: `{"prompt": ..., "reference": ...}`."""

    @property
    def model_name(self) -> str:
        return "reasoning-gym"

    def generate(self, inputs: list[list[Message]], num_generations: int = 1, seeds: Sequence[int] | None = None) -> list[GeneratorOutput]:
        assert num_generations == 1 and seeds is not None
        return [_generate_one(messages[-1]["content"], seed) for messages, seed in zip(inputs, seeds, strict=True)]


def _generate_one(request: str, seed: int) -> GeneratorOutput:
    try:
        question, task = draw_task(**json.loads(request), seed=seed)
    except ImpossibleTaskError:
        return generator_output([""], [IMPOSSIBLE], 0, [0])
    return generator_output([json.dumps({"prompt": question, "reference": str(task)})], ["stop"], 0, [0])
