"""Generation with `transformers`: all n responses to many prompts in one batch, and draws that do not depend on the batch.

Each response has its own random stream, one uniform number per token, which the inverse of the cumulative distribution turns into a
token. Splitting, resuming or reordering batches therefore changes nothing beyond floating-point rounding.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import PrivateAttr

from eva_stages.models.adapters import with_adapter
from eva_stages.models.architecture import position_count, runs_past_positions
from eva_stages.models.batching import room_batches
from eva_stages.models.conversation import Chat, SampledResponse
from eva_stages.models.loading import load_model, load_tokenizer
from eva_stages.models.local_generator import LocalGenerator, Prompt
from eva_stages.models.sampling import neutral_generation_config, processors, stop_texts
from eva_stages.models.token_loop import TokenLoop

if TYPE_CHECKING:
    import torch


class TransformersGenerator(LocalGenerator):
    """A model on CPU, on one accelerator, or spread over several.

    Attributes:
        tokens_per_batch: padded tokens per batch, including room for the responses.
        device: see `load_model`.
        lora: folder of a LoRA adapter to respond with.
    """

    device: str = "auto"
    tokens_per_batch: int = 16384
    lora: str | None = None

    _model: Any = PrivateAttr(None)

    def load(self) -> None:
        super().load()
        from transformers import AutoModelForCausalLM

        self._use_tokenizer(load_tokenizer(self.model, padding_side="left"))
        self._model = load_model(AutoModelForCausalLM, self.model, self.dtype, self.device)
        if self.lora is not None:
            self._model = with_adapter(self._model, self.lora).merge_and_unload().eval()
        # `generate` takes every setting that it is not given from the model's own configuration
        self._model.generation_config = neutral_generation_config(self._ends, self._tokenizer.pad_token_id)

    def unload(self) -> None:
        self._model = self._tokenizer = None

    def _sample(self, prompts: Sequence[Prompt], n: int, chat: Chat) -> list[list[SampledResponse] | None]:
        positions = position_count(Path(self.model))
        rooms = [self.max_new_tokens if positions is None else min(self.max_new_tokens, positions - len(prompt.ids)) for prompt in prompts]
        responses: list[list[SampledResponse] | None] = [None] * len(prompts)
        fitting = [index for index, room in enumerate(rooms) if room > 0]
        lengths, past_positions = [len(prompts[i].ids) for i in fitting], runs_past_positions(Path(self.model))
        for batch in room_batches(lengths, [rooms[i] for i in fitting], self.tokens_per_batch, n, past_positions):
            indices = [fitting[i] for i in batch]
            rows = self._rows([prompts[i] for i in indices], [rooms[i] for i in indices], n)
            for index, ids in zip(indices, rows, strict=True):
                responses[index] = [chat.read(row, self._ends, self.stop) for row in ids]
        return responses

    def _rows(self, prompts: list[Prompt], rooms: list[int], n: int) -> list[list[list[int]]]:
        """The ids of n responses to every prompt; ids after an end token are padding."""
        import torch

        longest, room = max(len(prompt.ids) for prompt in prompts), max(rooms)
        batch = self._tokenizer.pad({"input_ids": [prompt.ids for prompt in prompts]}, return_attention_mask=True, return_tensors="pt")
        steps = processors(self.sampling, [longest - len(prompt.ids) for prompt in prompts for _ in range(n)])
        if self.temperature > 0:
            draws = np.stack([np.random.default_rng([prompt.seed, k]).random(room) for prompt in prompts for k in range(n)])
            steps.append(_InverseSampler(torch.from_numpy(draws), longest))
        with torch.inference_mode():
            responses = self._model.generate(
                **{key: value.to(self._model.device) for key, value in batch.items()},
                generation_config=neutral_generation_config(self._ends, self._tokenizer.pad_token_id, max_new_tokens=room),
                logits_processor=steps,
                stopping_criteria=stop_texts(self.stop, self._tokenizer),
                custom_generate=TokenLoop(n, torch.tensor(rooms).repeat_interleave(n)),
            )
        rows = iter(responses.tolist())
        return [[next(rows)[:room] for _ in range(n)] for room in rooms]


class _InverseSampler:
    """A logits processor that leaves one token: the one whose cumulative probability first exceeds the row's next uniform."""

    def __init__(self, draws: "torch.Tensor", prompt_length: int) -> None:
        self._draws, self._prompt_length = draws, prompt_length

    def __call__(self, input_ids: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
        import torch

        draw = self._draws[:, input_ids.shape[1] - self._prompt_length].to(scores.device, torch.float32)
        cumulative = torch.softmax(scores.float(), dim=-1).cumsum(dim=-1)
        total = cumulative[:, -1]
        place = torch.minimum(draw * total, torch.nextafter(total, torch.zeros_like(total)))  # a draw near 1 is rounded to 1
        token = (cumulative <= place.unsqueeze(1)).sum(dim=-1, keepdim=True)
        return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)

    def keep(self, places: "torch.Tensor") -> None:
        """Continue with these rows of the batch."""
        self._draws = self._draws[places.to(self._draws.device)]
