"""Rewards: models and functions that score responses."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from eva_stages.core.config.function_fields import Verifier
from eva_stages.core.config.models_config import DType, ModelChoice, ModelRuntime
from eva_stages.core.config.paths import MaybeFile
from eva_stages.core.config.section import Section


class RewardSection(Section):
    """A reward of one kind."""

    target: ClassVar[str]
    """Its code, as "module:attr"."""
    rows: ClassVar[str] = "rewards"
    """The schema of its rows, unless a setting adds columns."""
    uses_chat_template: ClassVar[bool] = False
    """Whether it renders conversations with its own chat template."""

    @property
    def row_schema(self) -> str:
        """The schema of its rows with the settings of the recipe."""
        return self.rows


class LettercraftReward(RewardSection):
    """Lettercraft's grade of a response in [0, 1]: 1 if it is exact, else partial credit for a right beginning."""

    target = "eva_stages.models.lettercraft_rewards:LettercraftReward"
    kind: Literal["lettercraft"]
    exact: bool = False
    """No partial credit: 1 or 0, and 0 for every response to a prompt that has no answer."""


class LettercraftProxyReward(RewardSection):
    """A reward that can be hacked: it pays more for one more letter in the result than for an exact result."""

    target = "eva_stages.models.lettercraft_rewards:LettercraftProxyReward"
    kind: Literal["lettercraft_proxy"]


class LettercraftNoisyReward(RewardSection):
    """The exact reward, 1 or 0, with errors."""

    target = "eva_stages.models.lettercraft_rewards:LettercraftNoisyReward"
    kind: Literal["lettercraft_noisy"]
    errors: float = Field(gt=0, le=0.5)
    """Share of the responses with the wrong reward; a response to a prompt always has the same one."""


class LocalReward(RewardSection):
    """A reward model that runs on this machine."""

    model: MaybeFile
    revision: str | None = None
    max_length: int | None = Field(None, ge=8)
    """Maximum length of a conversation in tokens; longer ones have no reward and are counted. null = the model's number of positions."""
    dtype: DType = "auto"
    runtime: ModelRuntime = ModelRuntime()


class SequenceClassifierReward(LocalReward):
    """A sequence-classification reward model: one logit over the chat (Skywork style)."""

    target = "eva_stages.models.reward_models:SequenceClassifierReward"
    uses_chat_template = True
    kind: Literal["sequence_classifier"]


class ArmoRMReward(LocalReward):
    """ArmoRM: objectives weighted by a gate over the prompt; rows contain the objectives too. Code in the checkpoint is not run."""

    target = "eva_stages.models.reward_models:ArmoRMReward"
    rows = "objective_rewards"
    uses_chat_template = True
    kind: Literal["armorm"]


class PairRMReward(LocalReward):
    """PairRM: a DeBERTa ranker that compares two responses, in both orders."""

    target = "eva_stages.models.pairwise:PairRMReward"
    rows = "pairwise_rewards"
    kind: Literal["pairrm"]
    max_length: int = Field(1224, ge=8)
    """Tokens of the prompt; longer prompts are cut, as in the model's training."""
    candidate_max_length: int = Field(412, ge=8)
    """Tokens of a response; longer responses are cut, as in the model's training."""


class PairPreferenceReward(LocalReward):
    """A causal language model that prefers A or B, in both orders."""

    target = "eva_stages.models.pairwise:PairPreferenceReward"
    rows = "pairwise_rewards"
    uses_chat_template = True
    kind: Literal["pair_preference"]


class LettercraftJudgeReward(RewardSection):
    """Lettercraft's exact judge: compares every two responses of a prompt by their grades; win 1, tie 1/2, loss 0."""

    target = "eva_stages.models.pairwise:LettercraftJudgeReward"
    rows = "pairwise_rewards"
    kind: Literal["lettercraft_judge"]


class VerifierReward(RewardSection):
    """A Python function `f(messages, response, reference) -> float | None`: `math`, `instruction`, or a function in a file."""

    target = "eva_stages.models.rewards:VerifierReward"
    kind: Literal["verifier"]
    majority_target: ClassVar[str] = "eva_stages.models.majority:MajorityVerifier"
    """Its code with `missing_reference`."""
    function: Verifier
    """In a file: functions.py:name, or module:name for a module beside the recipe. It needs trust_code, or --trust."""
    missing_reference: Literal["majority"] | None = None
    """`majority`, for `math` and `lettercraft`: where a prompt has no reference, the most frequent final answer of its responses stands in.
    Without one that occurs twice and more often than any other, the responses have no reward. Rows and counts name the reference's source.
    null = the function gets None."""

    @property
    def row_schema(self) -> str:
        return "referenced_rewards" if self.missing_reference else self.rows


class LLMJudgeReward(RewardSection):
    """A generator that rates each response from 1 to 10."""

    target = "eva_stages.models.rewards:LLMJudgeReward"
    kind: Literal["llm_judge"]
    judge: ModelChoice
    rubric: str = "helpfulness, relevance, accuracy, depth, creativity and level of detail"
    """Criteria of the rating."""


PointwiseChoice = (
    LettercraftReward
    | LettercraftProxyReward
    | LettercraftNoisyReward
    | SequenceClassifierReward
    | ArmoRMReward
    | VerifierReward
    | LLMJudgeReward
)
PointwiseReward = Annotated[PointwiseChoice, Field(discriminator="kind")]


PairwiseReward = LettercraftJudgeReward | PairRMReward | PairPreferenceReward
"""Rewards that compare the responses of a prompt and give win probabilities."""

OneReward = PointwiseReward | PairwiseReward


class Member(Section):
    reward: PointwiseReward
    weight: float = Field(1.0, gt=0)


class EnsembleReward(Section):
    """A combination of rewards, each standardised over the stage's responses (mean 0, standard deviation 1)."""

    kind: Literal["ensemble"]
    members: tuple[Member, ...] = Field(min_length=2)
    combine: Literal["mean", "worst"] = "mean"
    """The weighted mean, or the lowest member (without weights)."""


Reward = Annotated[PointwiseChoice | EnsembleReward | PairwiseReward, Field(discriminator="kind")]
