"""Pointwise reward models that run here: a forward pass over the chat template of prompt and response.

Batches are made by length within a budget of padded tokens, across prompts. Sequences are padded on the right with the attention
mask passed, which is where `transformers`' classifiers and ArmoRM look for the last token of a conversation.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import PrivateAttr

from eva_stages.models.batching import token_batches
from eva_stages.models.conversation import Chat
from eva_stages.models.loading import load_model, load_tokenizer
from eva_stages.models.rewards import Conversation, PointwiseReward, Score


class SequenceClassifierReward(PointwiseReward):
    """A sequence-classification model with one logit: `logits[:, 0]`."""

    model: str
    max_length: int = 4096
    date: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    replicas: int | None = None
    tokens_per_batch: int = 16384
    _trusted: ClassVar[bool] = False
    _model: Any = PrivateAttr(None)
    _tokenizer: Any = PrivateAttr(None)

    def load(self) -> None:
        from transformers import AutoModelForSequenceClassification

        self._tokenizer = load_tokenizer(self.model, padding_side="right")
        self._model = load_model(AutoModelForSequenceClassification, self.model, self.dtype, self.device, self._trusted)
        self._check()
        if self._model.config.pad_token_id is None:
            self._model.config.pad_token_id = self._tokenizer.pad_token_id
        self._tokenizer.pad_token_id = self._model.config.pad_token_id

    def unload(self) -> None:
        self._model = self._tokenizer = None

    def _check(self) -> None:
        if self._model.config.num_labels != 1:
            raise ValueError(f"{self.model} has {self._model.config.num_labels} labels; a reward model has one")

    def score(self, conversations: Sequence[Conversation]) -> list[Score]:
        chat = Chat(self._tokenizer, self.date)
        encoded = [chat.conversation_ids([*one.messages, {"role": "assistant", "content": one.response}]) for one in conversations]
        scores = [Score(None, f"{len(ids)} tokens are more than max_length = {self.max_length}") for ids in encoded]
        fitting = [index for index, ids in enumerate(encoded) if len(ids) <= self.max_length]
        for batch in token_batches([len(encoded[i]) for i in fitting], self.tokens_per_batch):
            chosen = [fitting[i] for i in batch]
            for index, score in zip(chosen, self._forward([encoded[i] for i in chosen]), strict=True):
                scores[index] = score
        return scores

    def _forward(self, sequences: list[list[int]]) -> list[Score]:
        logits = self._run(sequences).logits[:, 0].float()
        return [Score(value) for value in logits.tolist()]

    def _run(self, sequences: list[list[int]]) -> Any:
        import torch

        padded = self._tokenizer.pad({"input_ids": sequences}, return_tensors="pt").to(self._model.device)
        with torch.inference_mode():
            return self._model(input_ids=padded["input_ids"], attention_mask=padded["attention_mask"])


class ArmoRMReward(SequenceClassifierReward):
    """ArmoRM (Wang et al. 2024): the reward is the gated `output.score`, the objectives behind it are `output.rewards`.

    The model's own code is run; the recipe has to allow that.
    """

    columns: ClassVar[tuple[str, ...]] = ("rewards", "failures", "objectives")
    _trusted: ClassVar[bool] = True

    def _check(self) -> None:
        """ArmoRM's labels are its objectives, as many as it likes."""

    def _forward(self, sequences: list[list[int]]) -> list[Score]:
        output = self._run(sequences)
        values, objectives = output.score.float().tolist(), output.rewards.float().tolist()
        return [Score(value, None, each) for value, each in zip(values, objectives, strict=True)]
