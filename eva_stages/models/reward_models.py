"""Local pointwise reward models: a forward pass over the chat template of prompt and response.

Batches are grouped by length within a budget of padded tokens, across prompts. Sequences are padded on the right with an attention mask,
because `transformers`' classifiers and ArmoRM expect the last token of a conversation there.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import PrivateAttr

from eva_stages.core.errors import DataError
from eva_stages.models.architecture import position_count
from eva_stages.models.batching import token_batches
from eva_stages.models.conversation import Chat
from eva_stages.models.loading import load_model, load_tokenizer
from eva_stages.models.rewards import Conversation, PointwiseReward, RewardModel, Score


class LocalReward(RewardModel):
    """A reward model that runs here.

    Attributes:
        model: checkpoint folder.
        max_length: tokens of the longest sequence that is scored; None = the model's number of positions.
        tokens_per_batch: padded tokens per batch.
    """

    model: str
    max_length: int | None = None
    dtype: str = "auto"
    device: str = "auto"
    replicas: int | None = None
    tokens_per_batch: int = 16384
    _model: Any = PrivateAttr(None)
    _tokenizer: Any = PrivateAttr(None)

    def unload(self) -> None:
        self._model = self._tokenizer = None


class SequenceClassifierReward(LocalReward, PointwiseReward):
    """A sequence-classification model with one logit: `logits[:, 0]`."""

    date: str | None = None
    _limit: int | None = PrivateAttr(None)
    _padding: int | None = PrivateAttr(0)

    def load(self) -> None:
        self._tokenizer = load_tokenizer(self.model, padding_side="right")
        self._limit = self.max_length or position_count(Path(self.model))
        self._load_model()

    def _load_model(self) -> None:
        from transformers import AutoModelForSequenceClassification

        self._model = load_model(AutoModelForSequenceClassification, self.model, self.dtype, self.device)
        labels = self._model.config.num_labels
        if labels != 1:
            raise DataError(f"{self.model} has {labels} labels; a reward model must have 1")
        padding = self._model.config.get_text_config().pad_token_id
        self._padding = None if padding is None or padding < 0 else padding  # the first Llama checkpoints have -1

    def score(self, conversations: Sequence[Conversation]) -> list[Score]:
        chat = Chat(self._tokenizer, self.date)
        chats = [[*conversation.messages, {"role": "assistant", "content": conversation.response}] for conversation in conversations]
        refusals = [chat.refusal(messages, is_finished=True) for messages in chats]
        sequences = [[] if reason else chat.conversation_ids(messages) for messages, reason in zip(chats, refusals, strict=True)]
        reasons = [
            f"the reward's chat template rejects the conversation: {reason}" if reason else self._refusal(ids)
            for reason, ids in zip(refusals, sequences, strict=True)
        ]
        scores = [Score(None, reason) for reason in reasons]
        fitting = [index for index, reason in enumerate(reasons) if reason is None]
        for batch in token_batches([len(sequences[i]) for i in fitting], self.tokens_per_batch):
            indices = [fitting[i] for i in batch]
            for index, score in zip(indices, self._forward([sequences[i] for i in indices]), strict=True):
                scores[index] = score
        return scores

    def _refusal(self, ids: list[int]) -> str | None:
        """Why a conversation cannot be scored; None if possible."""
        if self._limit is not None and len(ids) > self._limit:
            return f"{len(ids)} tokens are more than max_length = {self._limit}"
        return None

    def _forward(self, sequences: list[list[int]]) -> list[Score]:
        import torch

        with torch.inference_mode():
            logits = self._model(**self._pad(sequences)).logits[:, 0].float()
        return [Score(value) for value in logits.tolist()]

    def _padding_of(self, sequences: list[list[int]]) -> int:
        """The padding token, before which the model expects the end of a conversation. If its configuration names none, a token that does
        not end any of these sequences.
        """
        if self._padding is not None:
            return self._padding
        ends = {ids[-1] for ids in sequences}
        padding = next(token for token in range(len(ends) + 1) if token not in ends)
        self._model.config.get_text_config().pad_token_id = padding
        return padding

    def _pad(self, sequences: list[list[int]]) -> dict[str, Any]:
        """Ids padded on the right. The padding may be a token that the tokenizer does not contain."""
        import torch

        width, padding = max(len(ids) for ids in sequences), self._padding_of(sequences)
        ids = torch.tensor([[*ids, *[padding] * (width - len(ids))] for ids in sequences])
        mask = torch.arange(width) < torch.tensor([[len(ids)] for ids in sequences])
        return {"input_ids": ids.to(self._model.device), "attention_mask": mask.long().to(self._model.device)}


class ArmoRMReward(SequenceClassifierReward):
    """ArmoRM (Wang et al. 2024): the reward is the gated score; its objectives are saved in a column."""

    columns: ClassVar[tuple[str, ...]] = ("rewards", "failures", "objectives")

    def _load_model(self) -> None:
        from eva_stages.models.armorm import ArmoRM

        self._model = load_model(ArmoRM, self.model, self.dtype, self.device)

    def _refusal(self, ids: list[int]) -> str | None:
        from eva_stages.models.armorm import header_place

        no_header = "the conversation has no assistant header, which ArmoRM's gate reads; use the tokenizer that came with the model"
        return super()._refusal(ids) or (no_header if header_place(ids) is None else None)

    def _forward(self, sequences: list[list[int]]) -> list[Score]:
        import torch

        from eva_stages.models.armorm import header_place

        headers = torch.tensor([header_place(ids) for ids in sequences], device=self._model.device)
        with torch.inference_mode():
            output = self._model(**self._pad(sequences), headers=headers)
        values, objectives = output.score.float().tolist(), output.rewards.float().tolist()
        return [Score(value, None, values_of_objectives) for value, values_of_objectives in zip(values, objectives, strict=True)]
