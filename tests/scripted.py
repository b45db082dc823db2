"""A model whose replies a test gives."""

from collections.abc import Sequence

from eva_stages.core.generating import GeneratorOutput, SeededLLM, generator_output
from eva_stages.core.rows import Message


class ScriptedLLM(SeededLLM):
    """Replies in a given order, whatever it is asked, and keeps the requests."""

    replies: list[str | None]
    finish_reason: str = "stop"
    requests: list[str] = []

    @property
    def model_name(self) -> str:
        return "scripted"

    def generate(self, inputs: list[list[Message]], num_generations: int = 1, seeds: Sequence[int] | None = None) -> list[GeneratorOutput]:
        self.requests = [*self.requests, *(messages[-1]["content"] for messages in inputs)]
        texts, self.replies = self.replies[: len(inputs)], self.replies[len(inputs) :]
        return [generator_output([text], [self.finish_reason], 1, [1]) for text in texts]
