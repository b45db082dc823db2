"""The gate: which evolved prompts are valid tasks, and an audit of its verdicts."""

from typing import Annotated, Literal

from pydantic import Field

from eva_stages.core.config.function_fields import OptionalValidity, Validity
from eva_stages.core.config.models_config import LiteLLMModel, PolicyModel, TransformersModel, VLLMModel
from eva_stages.core.config.section import Section

Judge = Annotated[PolicyModel | TransformersModel | VLLMModel | LiteLLMModel, Field(discriminator="kind")]
BY_JUDGE: Literal["judge"] = "judge"


class GateAudit(Section):
    """Checks random samples of the gate's verdicts once more, for its precision. Changes no prompt set."""

    sample: int = Field(50, ge=1)
    """Prompts that passed, and prompts that were left out as too long, repetitive or not answerable: this many of each, per iteration."""
    judge: Judge | None = None
    """A stronger model than the gate's."""
    answerable: Validity = BY_JUDGE
    """`judge`, or a function as in the gate."""


class Gate(Section):
    """Leaves out evolved prompts that are no valid tasks, by the first of its tests that they fail, cheap tests first.

    A judge is asked twice, the second time with the options in the other order; a prompt passes if both replies say yes."""

    max_length_ratio: float | None = Field(2.5, gt=0)
    """Characters of the last user message, as a multiple of the parent's; null = no limit."""
    min_zlib_ratio: float | None = Field(0.15, gt=0, lt=1)
    """Compressed bytes of the last user message, as a share of its bytes; it is low where a text repeats itself. null = no limit."""
    judge: Judge | None = None
    relevant: Literal["judge"] | None = None
    """Whether the prompt is about its parent's subject; `judge` asks the judge."""
    answerable: OptionalValidity = None
    """Whether the prompt can be answered and its reference, if any, is right: `judge`, or a function `f(messages, reference) -> bool |
    None`: `lettercraft`, `reasoning_gym`, or a function in a file."""
    audit: GateAudit | None = None
