"""The network of PairRM, which `transformers` does not contain: DeBERTa-v2 with a small head over marker positions.

Parameter names match the published safetensors (PairRM-hf), so `from_pretrained` reads them.
"""

import torch
from torch import nn
from transformers import DebertaV2Config, DebertaV2Model, DebertaV2PreTrainedModel


class DebertaRanker(DebertaV2PreTrainedModel):
    """Scores two candidate responses to a source, all three in one sequence.

    The configuration contains the ids of the markers: `source_prefix_id`, `cand1_prefix_id`, `cand2_prefix_id`.
    """

    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__(config)
        self.pretrained_model = DebertaV2Model(config)
        size = config.hidden_size
        dropout = nn.Dropout(config.drop_out)
        self.head_layer = nn.Sequential(dropout, nn.Linear(2 * size, size), nn.Tanh(), dropout, nn.Linear(size, config.n_tasks))
        self.post_init()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """s_1 - s_2, shape (batch,): the logit of the first candidate winning; mean over the head's tasks."""
        states = self.pretrained_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        source, first, second = (
            self._at(states, input_ids, marker)
            for marker in (self.config.source_prefix_id, self.config.cand1_prefix_id, self.config.cand2_prefix_id)
        )
        scores = [self.head_layer(torch.cat([source, candidate], dim=-1)) for candidate in (first, second)]
        return (scores[0] - scores[1]).mean(dim=-1)

    @staticmethod
    def _at(states: torch.Tensor, input_ids: torch.Tensor, marker: int) -> torch.Tensor:
        """Hidden state at the first occurrence of a marker in each sequence, shape (batch, hidden)."""
        place = (input_ids == marker).int().argmax(dim=1)
        return states[torch.arange(len(states), device=states.device), place]
