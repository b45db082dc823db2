"""Generation with `transformers`: all n responses of many prompts in one batch, and draws that do not depend on the batch.

Each response has a random stream of its own, one uniform number per token, turned into a token by the inverse of the cumulative
distribution. Splitting, resuming or reordering batches therefore changes nothing beyond floating-point rounding. A prompt that
leaves no room for an answer is never truncated: its responses are null.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, PrivateAttr

from eva_stages.core.generating import Generated, SeededLLM, generated
from eva_stages.core.rows import Message
from eva_stages.models.batching import chat_tokens, token_batches, with_system_prompt
from eva_stages.models.loading import load_model, load_tokenizer

if TYPE_CHECKING:
    import torch


class TransformersGenerator(SeededLLM):
    """A causal language model from a checkpoint folder, on CPU, one accelerator, or several that share it.

    Attributes:
        model: checkpoint folder with tokenizer and chat template.
        label: what the rows call the model (a folder differs from machine to machine).
        temperature: 0 = greedy.
        stop: texts that end an answer and are left out of it.
        system_prompt: put before conversations without a system message.
        tokens_per_batch: padded tokens per batch, room for the answers included.
        device: see `load_model`.
        replicas: copies of the model; it is the step's resources that make them.
    """

    model: str
    label: str = ""
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 256
    stop: list[str] = Field(default_factory=list)
    system_prompt: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    replicas: int | None = None
    tokens_per_batch: int = 16384

    _model: Any = PrivateAttr(None)
    _tokenizer: Any = PrivateAttr(None)

    @property
    def model_name(self) -> str:
        return self.label or self.model

    def load(self) -> None:
        super().load()
        from transformers import AutoModelForCausalLM

        self._tokenizer = load_tokenizer(self.model, padding_side="left")
        if self._tokenizer.chat_template is None:
            raise ValueError(f"the tokenizer of {self.model} has no chat template, so it cannot be asked anything")
        self._model = load_model(AutoModelForCausalLM, self.model, self.dtype, self.device)

    def unload(self) -> None:
        self._model = self._tokenizer = None

    def generate(self, inputs: list[list[Message]], num_generations: int = 1, seeds: Sequence[int] | None = None) -> list[Generated]:
        prompts = [chat_tokens(self._tokenizer, with_system_prompt(messages, self.system_prompt), True) for messages in inputs]
        streams = seeds if seeds is not None else [int(seed) for seed in np.random.default_rng().integers(2**62, size=len(inputs))]
        rooms = [min(self.max_new_tokens, self._model.config.max_position_embeddings - len(ids)) for ids in prompts]
        results: list[Generated | None] = [
            None if room > 0 else _too_long(len(ids), num_generations) for ids, room in zip(prompts, rooms, strict=True)
        ]
        waiting = [index for index, result in enumerate(results) if result is None]
        for batch in token_batches([len(prompts[i]) + rooms[i] for i in waiting], self.tokens_per_batch, num_generations):
            chosen = [waiting[i] for i in batch]
            answers = self._answer([prompts[i] for i in chosen], [rooms[i] for i in chosen], [streams[i] for i in chosen], num_generations)
            for index, answer in zip(chosen, answers, strict=True):
                results[index] = answer
        return [result for result in results if result is not None]

    def _answer(self, prompts: list[list[int]], rooms: list[int], seeds: list[int], n: int) -> list[Generated]:
        import torch
        from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

        longest, room = max(len(ids) for ids in prompts), max(rooms)
        batch = self._tokenizer.pad({"input_ids": [ids for ids in prompts for _ in range(n)]}, return_tensors="pt")
        processors = LogitsProcessorList()
        if self.temperature > 0:
            draws = np.stack([np.random.default_rng([seed, k]).random(room) for seed in seeds for k in range(n)])
            processors.append(TemperatureLogitsWarper(self.temperature))
            if self.top_p < 1:
                processors.append(TopPLogitsWarper(self.top_p))
            processors.append(_InverseSampler(torch.from_numpy(draws), longest))
        with torch.inference_mode():
            output = self._model.generate(
                **{key: value.to(self._model.device) for key, value in batch.items()},
                logits_processor=processors,
                max_new_tokens=room,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=self._tokenizer.pad_token_id,
                **({"stop_strings": self.stop, "tokenizer": self._tokenizer} if self.stop else {}),
            )
        answers = iter(output[:, longest:].tolist())
        return [self._read([next(answers)[:room] for _ in range(n)], len(ids)) for ids, room in zip(prompts, rooms, strict=True)]

    def _read(self, rows: list[list[int]], input_tokens: int) -> Generated:
        """Texts, finish reasons and numbers of tokens (the end token counts) of one prompt's answers."""
        read = [self._text(row) for row in rows]
        return generated([text for text, _, _ in read], [reason for _, reason, _ in read], input_tokens, [count for _, _, count in read])

    def _text(self, row: list[int]) -> tuple[str, str, int]:
        eos = self._model.generation_config.eos_token_id
        ends = set(eos if isinstance(eos, list) else [eos])
        end = next((place for place, token in enumerate(row) if token in ends), None)
        text = self._tokenizer.decode(row if end is None else row[:end], skip_special_tokens=True)
        cut = min((place for stop in self.stop if (place := text.find(stop)) >= 0), default=None)
        if cut is not None:
            return text[:cut], "stop", _until_padding(row, self._tokenizer.pad_token_id)
        return text, "length" if end is None else "stop", len(row) if end is None else end + 1


def _until_padding(row: list[int], pad: int) -> int:
    return row.index(pad) if pad in row else len(row)


def _too_long(tokens: int, n: int) -> Generated:
    return generated([None] * n, ["prompt_too_long"] * n, tokens, [0] * n)


class _InverseSampler:
    """A logits processor that leaves one token: the one whose cumulative probability first exceeds the row's next uniform."""

    def __init__(self, draws: "torch.Tensor", prompt_length: int) -> None:
        self._draws, self._prompt_length = draws, prompt_length

    def __call__(self, input_ids: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
        import torch

        draw = self._draws[:, input_ids.shape[1] - self._prompt_length].to(scores.device, torch.float32)
        cumulative = torch.softmax(scores.float(), dim=-1).cumsum(dim=-1)
        token = (cumulative <= (draw * cumulative[:, -1]).unsqueeze(1)).sum(dim=-1, keepdim=True).clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)
