"""Pairwise rewards: the probability that each response to a prompt beats each other response.

Every pair is compared in both orders, all pairs of all rows of a call in token-budget batches:

    P[i, j] = (p(i first, j second) + 1 - p(j first, i second)) / 2,    P[i, i] = 1/2,    P[i, j] + P[j, i] = 1

The reward of a response is its mean win probability over all n responses including itself, as SPPO requires. A response with a failed
comparison has no reward. Lettercraft's judge compares exactly and needs no weights.
"""

from abc import abstractmethod
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from pydantic import PrivateAttr

from eva_stages.core.errors import DataError
from eva_stages.core.rows import Message, last_user_text
from eva_stages.lettercraft.language import grade, parse
from eva_stages.models.architecture import position_count
from eva_stages.models.batching import token_batches
from eva_stages.models.conversation import Chat
from eva_stages.models.loading import load_model, load_tokenizer
from eva_stages.models.reward_models import LocalReward
from eva_stages.models.rewards import NO_RESPONSE, Candidates, RewardModel


class Comparison(NamedTuple):
    messages: list[Message]
    first: str
    second: str


def win_matrix(first_wins: np.ndarray) -> np.ndarray:
    """P[i, j] from the probabilities that the first response wins, averaged over both orders.

    Args:
        first_wins: shape (n, n); entry [i, j] with i first and j second; the diagonal is ignored; NaN = not compared.

    Returns:
        Shape (n, n), 1/2 on the diagonal, P + P^T = 1.
    """
    matrix = (first_wins + 1 - first_wins.T) / 2
    np.fill_diagonal(matrix, 0.5)
    return matrix


class PairwiseReward(RewardModel):
    """Compares the responses of a prompt with each other."""

    columns: ClassVar[tuple[str, ...]] = ("rewards", "failures", "win_probability", "win_matrix")

    @abstractmethod
    def compare(self, comparisons: Sequence[Comparison]) -> np.ndarray:
        """Probability that the first response wins, shape (comparisons,); NaN where they cannot be compared."""

    @abstractmethod
    def why_not(self) -> str:
        """Why a comparison was NaN."""

    def score_rows(self, rows: Sequence[Candidates]) -> list[dict[str, Any]]:
        places = [(index, i, j) for index, row in enumerate(rows) for i, j in permutations(_present(row), 2)]
        wins = self.compare([Comparison(rows[r].messages, rows[r].responses[i] or "", rows[r].responses[j] or "") for r, i, j in places])
        matrices = [np.full((len(row.responses), len(row.responses)), np.nan) for row in rows]
        for (index, i, j), value in zip(places, wins, strict=True):
            matrices[index][i, j] = value
        return [self._columns(row, win_matrix(matrix)) for row, matrix in zip(rows, matrices, strict=True)]

    def _columns(self, row: Candidates, matrix: np.ndarray) -> dict[str, Any]:
        present = _present(row)
        means = {i: matrix[i, present].mean() for i in present}
        rewards = [None if i not in means or np.isnan(means[i]) else float(means[i]) for i in range(len(row.responses))]
        failures = [None if reward is not None else self.why_not() if i in means else NO_RESPONSE for i, reward in enumerate(rewards)]
        table = [[None if np.isnan(value) else float(value) for value in line] for line in matrix]
        return {"rewards": rewards, "failures": failures, "win_probability": rewards, "win_matrix": table}


class LettercraftJudgeReward(PairwiseReward):
    """Lettercraft's exact judge: the response with the higher grade wins; equal grades are a tie (1/2)."""

    def compare(self, comparisons: Sequence[Comparison]) -> np.ndarray:
        return np.array([_winner(comparison) for comparison in comparisons])

    def why_not(self) -> str:
        return "not a Lettercraft instruction"


def _winner(comparison: Comparison) -> float:
    """1 if the first response wins, 1/2 for a tie, 0 if it loses; NaN without an instruction."""
    instruction = parse(last_user_text(comparison.messages))
    if instruction is None or not instruction.answer:
        return float("nan")
    margin = grade(instruction, comparison.first) - grade(instruction, comparison.second)
    return float(np.sign(margin) + 1) / 2


class PairwiseModel(LocalReward, PairwiseReward):
    """A model that runs here and compares two responses at a time."""

    @abstractmethod
    def encode(self, comparison: Comparison) -> list[int]:
        """Token ids of one comparison."""

    @abstractmethod
    def first_wins(self, batch: Any) -> Any:
        """Probability that the first response wins, shape (batch,), for padded `input_ids` and `attention_mask`."""

    def compare(self, comparisons: Sequence[Comparison]) -> np.ndarray:
        import torch

        sequences = [self.encode(comparison) for comparison in comparisons]
        limit = self._limit()
        fitting = [index for index, ids in enumerate(sequences) if limit is None or len(ids) <= limit]
        wins = np.full(len(sequences), np.nan)
        for places in token_batches([len(sequences[i]) for i in fitting], self.tokens_per_batch):
            indices = [fitting[i] for i in places]
            batch_ids = [sequences[i] for i in indices]
            tensors = self._tokenizer.pad({"input_ids": batch_ids}, return_attention_mask=True, return_tensors="pt").to(self._model.device)
            with torch.inference_mode():
                wins[indices] = self.first_wins(tensors).double().cpu().numpy()
        return wins

    def _limit(self) -> int | None:
        """Tokens of the longest comparison; None = no limit."""
        return self.max_length or position_count(Path(self.model))

    def why_not(self) -> str:
        return f"a comparison with it is longer than max_length = {self._limit()} tokens"


def _present(row: Candidates) -> list[int]:
    return [i for i, text in enumerate(row.responses) if text is not None]


def context_text(messages: Sequence[Message]) -> str:
    """A prompt as plain text: the message alone, or several turns with their roles."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n".join(f"{message['role'].upper()}: {message['content']}" for message in messages)


class PairRMReward(PairwiseModel):
    """PairRM (Jiang et al. 2023): a DeBERTa ranker that reads the prompt and both responses.

    P(first beats second) = sigmoid(s_1 - s_2), with s a head over the hidden states at the source's and the response's markers.
    Long prompts and responses are truncated, as in the model's training.
    """

    max_length: int = 1224
    candidate_max_length: int = 412

    def load(self) -> None:
        from eva_stages.models.pairrm import DebertaRanker

        self._tokenizer = load_tokenizer(self.model)
        self._model = load_model(DebertaRanker, self.model, self.dtype, self.device)

    def encode(self, comparison: Comparison) -> list[int]:
        source = self._part("<|source|>", context_text(comparison.messages), self.max_length)
        room = (self._limit() - len(source)) // 2  # a short prompt leaves more room for the responses
        return source + self._part("<|candidate1|>", comparison.first, room) + self._part("<|candidate2|>", comparison.second, room)

    def _part(self, marker: str, text: str, limit: int) -> list[int]:
        return list(self._tokenizer(marker + text, max_length=limit, truncation=True)["input_ids"])

    def _limit(self) -> int:
        return self.max_length + 2 * self.candidate_max_length

    def first_wins(self, batch: Any) -> Any:
        return self._model(batch["input_ids"], batch["attention_mask"]).float().sigmoid()


LETTERS = ("A", "B")
QUESTION = "[CONTEXT] {context} [RESPONSE A] {a} [RESPONSE B] {b} \n"


def turns_text(messages: Sequence[Message]) -> str:
    """A prompt in the format of the preference model's training (the model card's template, as `transformers` renders it)."""
    return "\n" + "".join(f"\n<turn> {message['role']}\n {message['content']}" for message in messages) + "\n"


def letter_ids(tokenizer: Any, model: str) -> list[int]:
    """The tokens by which a model prefers the first or the second response.

    Raises:
        DataError: if a letter is not a single token.
    """
    ids = [tokenizer.encode(letter, add_special_tokens=False) for letter in LETTERS]
    if split := [letter for letter, tokens in zip(LETTERS, ids, strict=True) if len(tokens) != 1]:
        raise DataError(f"{model} has no single token for {' and '.join(split)}, so it cannot indicate which response it prefers")
    return [int(tokens[0]) for tokens in ids]


class PairPreferenceReward(PairwiseModel):
    """A causal language model that selects the better response (Dong et al. 2024): softmax of its last logits over "A" and "B"."""

    date: str | None = None
    _letters: list[int] = PrivateAttr(default_factory=list)

    def load(self) -> None:
        from transformers import AutoModelForCausalLM

        self._tokenizer = load_tokenizer(self.model, padding_side="left")
        self._letters = letter_ids(self._tokenizer, self.model)
        self._model = load_model(AutoModelForCausalLM, self.model, self.dtype, self.device)

    def encode(self, comparison: Comparison) -> list[int]:
        question = QUESTION.format(context=turns_text(comparison.messages), a=comparison.first, b=comparison.second)
        ids = Chat(self._tokenizer, self.date).conversation_ids([{"role": "user", "content": question}])
        return ids[1:] if ids[0] == self._tokenizer.bos_token_id else ids  # the model was trained without it

    def first_wins(self, batch: Any) -> Any:
        mask = batch["attention_mask"]
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        output = self._model(input_ids=batch["input_ids"], attention_mask=mask, position_ids=positions, logits_to_keep=1)
        return output.logits[:, -1, self._letters].float().softmax(dim=-1)[:, 0]
