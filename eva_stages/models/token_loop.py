"""The decoding loop of `TransformersGenerator`, which `generate` of transformers calls in place of its own (`custom_generate`).

A prompt is computed once for all its responses, and a response that has ended leaves the batch, so that the model computes only
tokens that are kept.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

CROWDED_SHARE = 0.9
"""The batch is made smaller when no more than this share of it is unfinished: each time copies the cache, as every new token does."""


class TokenLoop:
    """Generates `copies` responses to every prompt of a batch.

    Args:
        rooms: the most tokens of each response, response by response.
    """

    def __init__(self, copies: int, rooms: "torch.Tensor") -> None:
        self._copies, self._rooms = copies, rooms

    def __call__(
        self, model: Any, input_ids: "torch.Tensor", logits_processor: Any, stopping_criteria: Any, generation_config: Any, **state: Any
    ) -> "torch.Tensor":
        """The tokens of the responses, one row per response, padded behind its end."""
        import torch

        device, pad = input_ids.device, generation_config.pad_token_id or 0
        rooms = self._rooms.to(device)
        copied_rows = torch.arange(len(input_ids), device=device).repeat_interleave(self._copies)
        is_shared = _can_rearrange(model, state.get("past_key_values"))
        prompt_length = input_ids.shape[1]
        if not is_shared:
            input_ids, state = input_ids[copied_rows], _rows_of(state, copied_rows)
        outputs = model(**model.prepare_inputs_for_generation(input_ids, is_first_iteration=True, **state), return_dict=True)
        state, logits = model._update_model_kwargs_for_generation(outputs, state), outputs.logits[:, -1]
        if is_shared:
            input_ids, logits, state = input_ids[copied_rows], logits[copied_rows], _rows_of(state, copied_rows)
        responses = torch.full((len(rooms), int(rooms.max())), pad, device=device)
        rows = torch.arange(len(rooms), device=device)
        is_finished = torch.zeros_like(rows, dtype=torch.bool)
        for step in range(responses.shape[1]):
            scores = logits_processor(input_ids, logits.float())
            tokens = scores.argmax(dim=-1).masked_fill(is_finished, pad)
            responses[rows, step] = tokens
            input_ids = torch.cat([input_ids, tokens[:, None]], dim=-1)
            is_finished |= stopping_criteria(input_ids[:, prompt_length:], None) | (rooms[rows] <= step + 1)
            unfinished_count = len(rows) - int(is_finished.sum())
            if not unfinished_count:
                break
            if is_shared and unfinished_count <= CROWDED_SHARE * len(rows):
                places = (~is_finished).nonzero()[:, 0]
                rows, input_ids, is_finished, state = rows[places], input_ids[places], is_finished[places], _rows_of(state, places)
                for processor in logits_processor:
                    if hasattr(processor, "keep"):
                        processor.keep(places)
            inputs = model.prepare_inputs_for_generation(input_ids, next_sequence_length=1, **state)
            outputs = model(**inputs, return_dict=True)
            state, logits = model._update_model_kwargs_for_generation(outputs, state), outputs.logits[:, -1]
        return responses


def _can_rearrange(model: Any, cache: Any) -> bool:
    """Whether a cache holds all that the model remembers of the tokens so far: the layers of some models keep their states themselves."""
    from transformers import Cache
    from transformers.cache_utils import LinearAttentionCacheLayerMixin

    return isinstance(cache, Cache) and (
        not model._is_stateful or any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in cache.layers)
    )


def _rows_of(state: dict[str, Any], places: "torch.Tensor") -> dict[str, Any]:
    """The model's inputs for some rows of the batch. A cache is changed; tensors have the batch before their last dimension."""
    import torch
    from transformers import Cache

    for value in state.values():
        if isinstance(value, Cache):
            value.reorder_cache(places)
    return {name: value.index_select(-2, places) if isinstance(value, torch.Tensor) else value for name, value in state.items()}
