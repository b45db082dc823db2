"""The network of ArmoRM (Wang et al. 2024), which replaces its published remote code: a Llama with a head of objectives and a gate.

Parameter names are those of the published safetensors. With h the hidden states of a conversation, t its last token and g the first
token of the last assistant header:

    rewards = regression(h_t),    gate = softmax(MLP(h_g) / temperature) * logit_scale,    score = sum(gate * (rewards @ transform))
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import nn
from transformers import LlamaConfig, LlamaModel, LlamaPreTrainedModel

ASSISTANT_HEADER = (128009, 128006, 78191, 128007, 271)
"""Llama 3's ids of `<|eot_id|><|start_header_id|>assistant<|end_header_id|>` and two newlines."""


class Scores(NamedTuple):
    """`score` of shape (batch,), `rewards` (the objectives) of shape (batch, objectives)."""

    score: torch.Tensor
    rewards: torch.Tensor


class Gate(nn.Module):
    """Weights of the objectives: linear layers with ReLU between them."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        hidden_size = getattr(config, "gating_hidden_dim", 1024)
        sizes = [config.hidden_size, *[hidden_size] * getattr(config, "gating_n_hidden", 3), config.num_labels]
        self.temperature = getattr(config, "gating_temperature", 10)
        self.layers = nn.ModuleList(nn.Linear(size_in, size_out) for size_in, size_out in pairwise(sizes))
        self.logit_scale = nn.Parameter(torch.ones(1))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        for layer in self.layers[:-1]:
            states = layer(states).relu()
        return (self.layers[-1](states) / self.temperature).softmax(dim=-1) * self.logit_scale


class ArmoRM(LlamaPreTrainedModel):
    """Reads `gating_hidden_dim`, `gating_n_hidden` and `gating_temperature` from the configuration; its labels are the objectives."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.model = LlamaModel(config)
        self.regression_layer = nn.Linear(config.hidden_size, config.num_labels, bias=False)
        self.reward_transform_matrix = nn.Parameter(torch.eye(config.num_labels))
        self.gating = Gate(config)
        # where the file has no bias for the gate's last layer, zeros are equivalent
        self._keys_to_ignore_on_load_missing = [rf"^gating\.layers\.{len(self.gating.layers) - 1}\.bias$"]
        self.post_init()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, headers: torch.Tensor) -> Scores:
        """Scores of conversations that are padded on the right.

        Args:
            headers: place of each conversation's last assistant header (`header_place`), shape (batch,).
        """
        states = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        rows = torch.arange(len(states), device=states.device)
        rewards = self.regression_layer(states[rows, attention_mask.sum(dim=1) - 1])
        gate = self.gating(states[rows, headers])
        return Scores((gate * (rewards @ self.reward_transform_matrix)).sum(dim=-1), rewards)


def header_place(ids: Sequence[int]) -> int | None:
    """Position of the last assistant header of a conversation; None if there is none."""
    width = len(ASSISTANT_HEADER)
    places = range(len(ids) - width, -1, -1)
    return next((place for place in places if tuple(ids[place : place + width]) == ASSISTANT_HEADER), None)
