"""What all sections of a recipe share."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Metric = Literal[
    "reward_gap",
    "reward_max_minus_mean",
    "reward_best_minus_second",
    "reward_variance",
    "reward_mean",
    "reward_mean_inverse",
    "reward_gap_inverse",
    "uniform",
]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
