"""Generation with `transformers`: all n responses of many prompts in one batch, and draws that do not depend on the batch.

Each response has a random stream of its own, one uniform number per token, turned into a token by the inverse of the cumulative
distribution. Splitting, resuming or reordering batches therefore changes nothing beyond floating-point rounding. A prompt that
leaves no room for an answer is never truncated: its responses are null.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, PrivateAttr

from eva_stages.core.generating import Generated, SeededLLM
from eva_stages.core.rows import Message
from eva_stages.models.architecture import position_count, runs_past_positions
from eva_stages.models.batching import answer_rooms, room_batches
from eva_stages.models.conversation import Chat
from eva_stages.models.loading import load_model, load_tokenizer
from eva_stages.models.sampling import Sampling, neutral_generation_config, processors, sampled_responses, too_long

if TYPE_CHECKING:
    import torch


class TransformersGenerator(SeededLLM):
    """A causal language model from a checkpoint folder, on CPU, one accelerator, or several that share it.

    Attributes:
        model: checkpoint folder with tokenizer and chat template.
        label: what the rows call the model (a folder differs from machine to machine).
        temperature: 0 = greedy.
        top_k, min_p: null and 0 = all tokens can be drawn.
        repetition_penalty: 1 = none.
        stop: texts that end an answer and are left out of it.
        system_prompt: put before conversations without a system message.
        date: what the chat template is given as today's date; null = the present day.
        tokens_per_batch: padded tokens per batch, room for the answers included.
        device: see `load_model`.
        replicas: copies of the model; it is the step's resources that make them.
    """

    model: str
    label: str = ""
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_new_tokens: int = 256
    stop: list[str] = Field(default_factory=list)
    system_prompt: str | None = None
    date: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    replicas: int | None = None
    tokens_per_batch: int = 16384

    _model: Any = PrivateAttr(None)
    _tokenizer: Any = PrivateAttr(None)
    _ends: list[int] = PrivateAttr(default_factory=list)

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
        self._ends = Chat(self._tokenizer).end_tokens(Path(self.model), self.stop)
        # `generate` fills every setting that it is not given from the model's own
        self._model.generation_config = neutral_generation_config(self._ends, self._tokenizer.pad_token_id)

    def unload(self) -> None:
        self._model = self._tokenizer = None

    def generate(self, inputs: list[list[Message]], num_generations: int = 1, seeds: Sequence[int] | None = None) -> list[Generated]:
        chat = Chat(self._tokenizer, self.date, self.system_prompt)
        texts = [chat.prompt_text(messages) for messages in inputs]
        prompts = [chat.ids(text) for text in texts]
        streams = seeds if seeds is not None else [int(seed) for seed in np.random.default_rng().integers(2**62, size=len(inputs))]
        rooms = answer_rooms(prompts, self.max_new_tokens, position_count(Path(self.model)))
        results: list[Generated | None] = [
            None if room > 0 else too_long(len(ids), num_generations) for ids, room in zip(prompts, rooms, strict=True)
        ]
        waiting = [index for index, result in enumerate(results) if result is None]
        lengths, free = [len(prompts[i]) for i in waiting], runs_past_positions(Path(self.model))
        for batch in room_batches(lengths, [rooms[i] for i in waiting], self.tokens_per_batch, num_generations, free):
            chosen = [waiting[i] for i in batch]
            rows = self._rows([prompts[i] for i in chosen], [rooms[i] for i in chosen], [streams[i] for i in chosen], num_generations)
            for index, ids in zip(chosen, rows, strict=True):
                sampled = [chat.read(row, self._ends, self.stop) for row in ids]
                results[index] = sampled_responses(sampled, texts[index], len(prompts[index]))
        return [result for result in results if result is not None]

    def _rows(self, prompts: list[list[int]], rooms: list[int], seeds: list[int], n: int) -> list[list[list[int]]]:
        """The ids of n responses to every prompt; what stands behind an end token is padding."""
        import torch

        longest, room = max(len(ids) for ids in prompts), max(rooms)
        rows_of_ids = [ids for ids in prompts for _ in range(n)]
        batch = self._tokenizer.pad({"input_ids": rows_of_ids}, return_attention_mask=True, return_tensors="pt")
        sampling = Sampling(self.temperature, self.top_p, self.top_k, self.min_p, self.repetition_penalty)
        steps = processors(sampling, [longest - len(ids) for ids in prompts for _ in range(n)])
        if self.temperature > 0:
            draws = np.stack([np.random.default_rng([seed, k]).random(room) for seed in seeds for k in range(n)])
            steps.append(_InverseSampler(torch.from_numpy(draws), longest))
        with torch.inference_mode():
            output = self._model.generate(
                **{key: value.to(self._model.device) for key, value in batch.items()},
                generation_config=neutral_generation_config(
                    self._ends, self._tokenizer.pad_token_id, max_new_tokens=room, stop_strings=self.stop or None
                ),
                logits_processor=steps,
                tokenizer=self._tokenizer,
            )
        rows = iter(output[:, longest:].tolist())
        return [[next(rows)[:room] for _ in range(n)] for room in rooms]


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
