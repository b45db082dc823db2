"""Generation with `transformers`: all n responses of many prompts in one batch, and draws that do not depend on the batch.

Each response has a random stream of its own, one uniform number per token, turned into a token by the inverse of the cumulative
distribution. Splitting, resuming or reordering batches therefore changes nothing beyond floating-point rounding. A prompt that
leaves no room for an answer is never truncated: its responses are null.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import PrivateAttr

from eva_stages.core.generating import Generated, SeededLLM, generated
from eva_stages.core.rows import Message
from eva_stages.models.loading import load_kwargs, pick_device

if TYPE_CHECKING:
    import torch


class TransformersGenerator(SeededLLM):
    """A causal language model from a checkpoint folder, on CPU or one accelerator.

    Attributes:
        model: checkpoint folder with tokenizer and chat template.
        label: what the rows call the model (a folder differs from machine to machine).
        temperature: 0 = greedy.
        batch_size: sequences per forward pass.
    """

    model: str
    label: str = ""
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 256
    dtype: str = "auto"
    device: str = "auto"
    batch_size: int = 64

    _model: Any = PrivateAttr(None)
    _tokenizer: Any = PrivateAttr(None)

    @property
    def model_name(self) -> str:
        return self.label or self.model

    def load(self) -> None:
        super().load()
        from transformers import AutoModelForCausalLM, AutoTokenizer

        device = pick_device(self.device)
        self._tokenizer = AutoTokenizer.from_pretrained(self.model, padding_side="left")
        if self._tokenizer.chat_template is None:
            raise ValueError(f"the tokenizer of {self.model} has no chat template, so it cannot be asked anything")
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._model = AutoModelForCausalLM.from_pretrained(self.model, **load_kwargs(self.dtype, device)).to(device).eval()

    def unload(self) -> None:
        self._model = self._tokenizer = None

    def generate(self, inputs: list[list[Message]], num_generations: int = 1, seeds: Sequence[int] | None = None) -> list[Generated]:
        prompts = [self._encode(messages) for messages in inputs]
        streams = seeds if seeds is not None else [int(seed) for seed in np.random.default_rng().integers(2**62, size=len(inputs))]
        limit = self._model.config.max_position_embeddings
        results: list[Generated | None] = [None if len(ids) < limit else _too_long(len(ids), num_generations) for ids in prompts]
        waiting = sorted((index for index, result in enumerate(results) if result is None), key=lambda index: len(prompts[index]))
        for batch in _chunks(waiting, max(1, self.batch_size // num_generations)):
            answers = self._answer([prompts[i] for i in batch], num_generations, [streams[i] for i in batch])
            for index, answer in zip(batch, answers, strict=True):
                results[index] = answer
        return [result for result in results if result is not None]

    def _encode(self, messages: list[Message]) -> list[int]:
        return list(self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"])

    def _answer(self, prompts: list[list[int]], n: int, seeds: list[int]) -> list[Generated]:
        import torch
        from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

        longest = max(len(ids) for ids in prompts)
        room = min(self.max_new_tokens, self._model.config.max_position_embeddings - longest)
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
            )
        answers = self._read(output[:, longest:].cpu())
        return [
            generated([text for text, _, _ in group], [reason for _, reason, _ in group], len(ids), [count for _, _, count in group])
            for ids, group in zip(prompts, _chunks(answers, n), strict=True)
        ]

    def _read(self, output: "torch.Tensor") -> list[tuple[str, str, int]]:
        """Text, finish reason and number of tokens (the end token counts) of each row."""
        eos = self._model.generation_config.eos_token_id
        ends = set(eos if isinstance(eos, list) else [eos])
        answers = []
        for row in output.tolist():
            stop = next((place for place, token in enumerate(row) if token in ends), None)
            text = self._tokenizer.decode(row if stop is None else row[:stop], skip_special_tokens=True)
            answers.append((text, "length" if stop is None else "stop", len(row) if stop is None else stop + 1))
        return answers


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


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
