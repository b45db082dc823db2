"""Reward models: given a prompt and its responses, one number per response.

A response that cannot be scored gets null and the reason; never 0, never a dropped row. Batches are sorted by length across
prompts, and a score does not depend on its batch beyond floating-point rounding.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from distilabel.steps import Step, StepInput
from distilabel.typing import StepOutput
from pydantic import BaseModel, ConfigDict, PrivateAttr

from eva_stages.core.parts import add_statistics
from eva_stages.core.rows import Message, last_user_text
from eva_stages.core.stage import load_attribute
from eva_stages.microworld.language import grade, parse
from eva_stages.models.loading import load_kwargs, pick_device

Score = tuple[float | None, str | None]
"""A reward, or None and the reason."""


class RewardModel(BaseModel, ABC):
    """Scores conversations that end in a response."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    def load(self) -> None:
        """Read weights; called once, in the process that scores."""

    @abstractmethod
    def score(self, conversations: Sequence[tuple[list[Message], str]]) -> list[Score]:
        """Score (messages, response) pairs; one entry each, in order."""


class MicroworldReward(RewardModel):
    """Lettercraft's exact graded reward."""

    def score(self, conversations: Sequence[tuple[list[Message], str]]) -> list[Score]:
        return [_graded(last_user_text(messages), response) for messages, response in conversations]


def _graded(prompt: str, response: str) -> Score:
    instruction = parse(prompt)
    return (grade(instruction, response), None) if instruction and instruction.answer else (None, "not a Lettercraft instruction")


class VerifierReward(RewardModel):
    """A Python function `f(messages, response) -> float | None`; what it raises is the reason of a null."""

    function: str
    _call: Callable[[list[Message], str], float | None] = PrivateAttr()

    def load(self) -> None:
        self._call = load_attribute(self.function)

    def score(self, conversations: Sequence[tuple[list[Message], str]]) -> list[Score]:
        return [self._one(messages, response) for messages, response in conversations]

    def _one(self, messages: list[Message], response: str) -> Score:
        try:
            value = self._call(messages, response)
        except Exception as error:  # whatever a user's function does, one row must not take the stage down
            return None, f"{type(error).__name__}: {error}"
        return (float(value), None) if value is not None else (None, "the verifier returned None")


class SequenceClassifierReward(RewardModel):
    """A sequence-classification model with one logit: `logits[:, 0]` over the chat template of prompt and response."""

    model: str
    max_length: int = 4096
    dtype: str = "auto"
    device: str = "auto"
    batch_size: int = 16
    _model: Any = PrivateAttr(None)
    _tokenizer: Any = PrivateAttr(None)

    def load(self) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        device = pick_device(self.device)
        self._tokenizer = AutoTokenizer.from_pretrained(self.model)
        self._model = AutoModelForSequenceClassification.from_pretrained(self.model, **load_kwargs(self.dtype, device))
        if self._model.config.num_labels != 1:
            raise ValueError(f"{self.model} has {self._model.config.num_labels} labels; a reward model has one")
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._model.config.pad_token_id = self._tokenizer.pad_token_id
        self._model.to(device).eval()

    def score(self, conversations: Sequence[tuple[list[Message], str]]) -> list[Score]:
        import torch

        encoded = [
            self._tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": response}], return_dict=True)["input_ids"]
            for messages, response in conversations
        ]
        scores: list[Score] = [(None, "conversation longer than max_length")] * len(encoded)
        order = sorted((i for i, ids in enumerate(encoded) if len(ids) <= self.max_length), key=lambda i: len(encoded[i]))
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            padded = self._tokenizer.pad({"input_ids": [encoded[i] for i in batch]}, return_tensors="pt").to(self._model.device)
            with torch.inference_mode():
                logits = self._model(input_ids=padded["input_ids"], attention_mask=padded["attention_mask"]).logits[:, 0]
            for index, value in zip(batch, logits.float().tolist(), strict=True):
                scores[index] = (value, None)
        return scores


class RewardResponses(Step):
    """Scores the responses of every row, in one batch over all rows of a call.

    Attributes:
        reward: what scores.
        responses: the input column; the output column is `rewards` or `<prefix>rewards` for `<prefix>responses`.

    Input columns:
        - messages, `responses`
    Output columns:
        - rewards (`list[float | None]`), failures (`list[str | None]`): null rewards have their reason in failures.
    """

    reward: RewardModel
    responses: str = "responses"

    @property
    def inputs(self) -> list[str]:
        return ["messages", self.responses]

    @property
    def outputs(self) -> list[str]:
        prefix = self.responses.removesuffix("responses")
        return [f"{prefix}rewards", f"{prefix}failures"]

    def load(self) -> None:
        super().load()
        self.reward.load()

    def process(self, inputs: StepInput) -> StepOutput:
        places = [(i, k) for i, row in enumerate(inputs) for k, text in enumerate(row[self.responses]) if text is not None]
        scores = self.reward.score([(inputs[i]["messages"], inputs[i][self.responses][k]) for i, k in places])
        known = dict(zip(places, map(_finite, scores), strict=True))
        rewards, failures = self.outputs
        for i, row in enumerate(inputs):
            pairs = [known.get((i, k), (None, "no response")) for k in range(len(row[self.responses]))]
            row[rewards], row[failures] = [value for value, _ in pairs], [reason for _, reason in pairs]
            add_statistics(row, responses=len(pairs), unscored=sum(value is None for value, _ in pairs))
        yield inputs


def _finite(score: Score) -> Score:
    value, _ = score
    return score if value is None or math.isfinite(value) else (None, f"the reward is {value}")
