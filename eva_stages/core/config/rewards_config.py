"""What scores responses."""

from typing import Annotated, Literal

from pydantic import Field

from eva_stages.core.config.function_fields import Verifier
from eva_stages.core.config.models_config import DType, ModelRuntime, Player
from eva_stages.core.config.paths import MaybeFile
from eva_stages.core.config.section import Section


class LettercraftReward(Section):
    """Lettercraft's exact graded reward in [0, 1]."""

    kind: Literal["lettercraft"]


class LocalReward(Section):
    """A reward model that runs here."""

    model: MaybeFile
    revision: str | None = None
    max_length: int | None = Field(None, ge=8)
    """Tokens of the longest conversation that is scored; longer ones are null, counted. null = as many as the model has positions for."""
    dtype: DType = "auto"
    runtime: ModelRuntime = ModelRuntime()


class SequenceClassifierReward(LocalReward):
    """A sequence-classification reward model: one logit over the chat (Skywork style)."""

    kind: Literal["sequence_classifier"]


class ArmoRMReward(LocalReward):
    """ArmoRM: objectives weighted by a gate that reads the prompt; they are kept beside the reward. No code of the model's is run."""

    kind: Literal["armorm"]


class PairRMReward(LocalReward):
    """PairRM: a DeBERTa ranker that compares two responses; every pair in both orders."""

    kind: Literal["pairrm"]
    max_length: int = Field(1224, ge=8)
    """Tokens of the prompt; longer ones are cut, as the model was trained."""
    candidate_max_length: int = Field(412, ge=8)
    """Tokens of a response; longer ones are cut, as the model was trained."""


class PairPreferenceReward(LocalReward):
    """A causal language model that says A or B; every pair in both orders."""

    kind: Literal["pair_preference"]


class LettercraftJudgeReward(Section):
    """Lettercraft's exact judge: compares every two responses of a prompt by their grades; win 1, tie 1/2, loss 0."""

    kind: Literal["lettercraft_judge"]


class VerifierReward(Section):
    """A Python callable `f(messages, response, reference) -> float | None`: `math`, `instruction`, or your own in a file."""

    kind: Literal["verifier"]
    function: Verifier
    """Your own: functions.py:name, or module:name for a module beside the recipe. Importing it needs trust_code, or --trust."""


class LLMJudgeReward(Section):
    """A generator that rates each response from 1 to 10."""

    kind: Literal["llm_judge"]
    judge: Player
    rubric: str = "helpfulness, relevance, accuracy, depth, creativity and level of detail"
    """What the rating weighs."""


PointwiseReward = Annotated[
    LettercraftReward | SequenceClassifierReward | ArmoRMReward | VerifierReward | LLMJudgeReward, Field(discriminator="kind")
]


PairwiseReward = LettercraftJudgeReward | PairRMReward | PairPreferenceReward
"""Rewards that compare the responses of a prompt with each other and give win probabilities."""


class Member(Section):
    reward: PointwiseReward
    weight: float = Field(1.0, gt=0)


class EnsembleReward(Section):
    """Several rewards as one, each first brought to mean 0 and standard deviation 1 over the stage's responses."""

    kind: Literal["ensemble"]
    members: tuple[Member, ...] = Field(min_length=2)
    combine: Literal["mean", "worst"] = "mean"
    """The weighted mean, or the lowest member (weights then do not count)."""


Reward = Annotated[
    LettercraftReward | SequenceClassifierReward | ArmoRMReward | VerifierReward | LLMJudgeReward | EnsembleReward | PairwiseReward,
    Field(discriminator="kind"),
]
