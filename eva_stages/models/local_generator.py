"""What both local engines share: sampling settings, rendering of prompts, random streams and how a response is read."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field, PrivateAttr

from eva_stages.core.generating import GeneratorOutput, SeededLLM
from eva_stages.core.rows import Message
from eva_stages.models.conversation import Chat, SampledResponse
from eva_stages.models.sampling import Sampling, sampled_responses, too_long


class Prompt(NamedTuple):
    """A rendered prompt with the seed of its responses."""

    text: str
    ids: list[int]
    seed: int


class LocalGenerator(SeededLLM):
    """A causal language model from a checkpoint folder. A prompt that leaves no room for a response gets null responses.

    Attributes:
        model: checkpoint folder with tokenizer and chat template.
        label: name of the model in rows (the folder differs between machines).
        temperature: 0 = greedy.
        top_k, min_p: null and 0 = every token can be drawn.
        repetition_penalty: 1 = none.
        stop: texts that end a response; they are not part of it.
        system_prompt: prepended to conversations without a system message.
        date: ISO date that the chat template receives as today's; null = the current day.
        replicas: copies of the model; the resources of the step create them.
    """

    model: str
    label: str = ""
    temperature: float = Field(1.0, ge=0)
    top_p: float = 1.0
    top_k: int | None = None
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_new_tokens: int = 256
    stop: list[str] = Field(default_factory=list)
    system_prompt: str | None = None
    date: str | None = None
    dtype: str = "auto"
    replicas: int | None = None

    _tokenizer: Any = PrivateAttr(None)
    _ends: list[int] = PrivateAttr(default_factory=list)

    @property
    def model_name(self) -> str:
        return self.label or self.model

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.temperature, self.top_p, self.top_k, self.min_p, self.repetition_penalty)

    def generate(self, inputs: list[list[Message]], num_generations: int = 1, seeds: Sequence[int] | None = None) -> list[GeneratorOutput]:
        chat = Chat(self._tokenizer, self.date, self.system_prompt)
        texts = [chat.prompt_text(messages) for messages in inputs]
        streams = seeds if seeds is not None else [int(seed) for seed in np.random.default_rng().integers(2**62, size=len(inputs))]
        prompts = [Prompt(text, chat.ids(text), seed) for text, seed in zip(texts, streams, strict=True)]
        responses = self._sample(prompts, num_generations, chat)
        return [
            too_long(len(prompt.ids), num_generations)
            if response_list is None
            else sampled_responses(response_list, prompt.text, len(prompt.ids))
            for prompt, response_list in zip(prompts, responses, strict=True)
        ]

    @abstractmethod
    def _sample(self, prompts: Sequence[Prompt], n: int, chat: Chat) -> list[list[SampledResponse] | None]:
        """n responses to every prompt; None where the prompt leaves no room for one."""

    def _use_tokenizer(self, tokenizer: Any) -> None:
        """Take the engine's tokenizer, and the tokens that end a response.

        Raises:
            ValueError: if the tokenizer has no chat template.
        """
        if tokenizer.chat_template is None:
            raise ValueError(f"the tokenizer of {self.model} has no chat_template; use an instruction-tuned model or set one")
        self._tokenizer = tokenizer
        self._ends = Chat(tokenizer).end_tokens(Path(self.model), self.stop)
