"""Rewards: given a prompt and its responses, one number per response.

A response that cannot be scored gets null and the reason, never 0, and its row is never dropped. A reward receives all rows of a call at
once, so that it can batch across prompts; a score does not depend on its batch beyond floating-point rounding. Local models are in
`reward_models` (pointwise) and `pairwise`.
"""

import math
import numbers
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from distilabel.models.llms import LLM
from distilabel.steps import StepInput
from distilabel.typing import StepOutput
from pydantic import BaseModel, ConfigDict, PrivateAttr

from eva_stages.core.config.function_fields import VERIFIER
from eva_stages.core.failures import CALL_ERRORS, add_calls, add_reasons, error_reason
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.generating import ask, reply_of, totals
from eva_stages.core.named_functions import FunctionCode, load_choice
from eva_stages.core.parts import add_statistics
from eva_stages.core.pipeline_patches import LoudStep
from eva_stages.core.rows import Message, prompt_id
from eva_stages.models.conversation import with_system_prompt

NO_RESPONSE = "no response"
"""Why a null response has no reward; it causes no call."""
NO_MAJORITY = "no reference, and no final answer has a majority"
"""Why the responses to a prompt without a reference have no reward, where they vote on one; it is no failed call."""
Verifier = Callable[[list[Message], str, str | None], float | None]


class Conversation(NamedTuple):
    """A prompt with one response, and the reference for verifiers."""

    messages: list[Message]
    response: str
    reference: str | None = None


class Score(NamedTuple):
    """A reward, or None and the reason; with the objectives behind it and the statistics of the call."""

    value: float | None
    failure: str | None = None
    objectives: list[float] | None = None
    statistics: dict[str, float] = {}


class Candidates(NamedTuple):
    """A prompt with its responses; a failed response is None."""

    messages: list[Message]
    responses: list[str | None]
    reference: str | None = None
    is_evolved: bool = False


class RewardModel(BaseModel, ABC):
    """Fills the reward columns of rows."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), arbitrary_types_allowed=True)
    columns: ClassVar[tuple[str, ...]] = ("rewards", "failures")
    """Columns that `score_rows` returns."""

    def load(self) -> None:
        """Read weights; called once, in the process that scores."""

    def unload(self) -> None:
        """Free the weights."""

    @abstractmethod
    def score_rows(self, rows: Sequence[Candidates]) -> list[dict[str, Any]]:
        """One dict per row with the model's `columns`, lists of n, and optionally `statistics`."""


class PointwiseReward(RewardModel):
    """Scores each response independently."""

    @abstractmethod
    def score(self, conversations: Sequence[Conversation]) -> list[Score]:
        """One score per conversation, in order."""

    def score_rows(self, rows: Sequence[Candidates]) -> list[dict[str, Any]]:
        places = [(i, k) for i, row in enumerate(rows) for k, text in enumerate(row.responses) if text is not None]
        scores = self.score([Conversation(rows[i].messages, rows[i].responses[k] or "", rows[i].reference) for i, k in places])
        score_at = dict(zip(places, map(finite, scores), strict=True))
        no_score = Score(None, NO_RESPONSE)
        return [_columns([score_at.get((i, k), no_score) for k in range(len(row.responses))]) for i, row in enumerate(rows)]


def _columns(scores: list[Score]) -> dict[str, Any]:
    statistics: Counter[str] = Counter()
    for score in scores:
        statistics.update(score.statistics)
    return {
        "rewards": [score.value for score in scores],
        "failures": [score.failure for score in scores],
        "objectives": [score.objectives for score in scores],
        "statistics": dict(statistics),
    }


def finite(score: Score) -> Score:
    """Turn a score that is not finite into a failure."""
    return score if score.value is None or math.isfinite(score.value) else Score(None, f"the reward is {score.value}")


class VerifierReward(PointwiseReward):
    """A Python function `f(messages, response, reference) -> float | None`; what it raises is the reason of a null.

    Attributes:
        function: `math`, `instruction`, or a function in a file.
        in_unit: numbers outside of [0, 1] are null.
    """

    function: str | FunctionCode
    in_unit: bool = False
    _call: Verifier = PrivateAttr()

    def load(self) -> None:
        self._call = load_choice(self.function, VERIFIER)

    def score(self, conversations: Sequence[Conversation]) -> list[Score]:
        return [self._score_conversation(conversation) for conversation in conversations]

    def _score_conversation(self, conversation: Conversation) -> Score:
        try:
            messages = [dict(message) for message in conversation.messages]  # a function may change its arguments
            return as_score(self._call(messages, conversation.response, conversation.reference), self.in_unit)
        except CALL_ERRORS as error:  # a single row must not stop the stage
            return Score(None, error_reason(error))


def as_score(value: Any, in_unit: bool = False) -> Score:
    """The return value of a function as a score: any real number, including numpy's and booleans; anything else is null."""
    if not isinstance(value, numbers.Real | np.bool_):
        description = "None" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
        return Score(None, f"the function returned {description}; expected a number")
    try:
        number = float(value)
    except OverflowError:
        return Score(None, f"the function returned {type(value).__name__} that is too large for a float")
    if in_unit and not 0 <= number <= 1:
        return Score(None, f"the function returned {number:g}; expected a number from 0 to 1")
    return Score(number)


JUDGE_TEMPLATE = (
    "Rate the assistant's answer to the user's last message. Weigh {rubric}; be strict and do not let length sway you. Say in a "
    "sentence or two what decides it, then end with the rating from 1 (useless) to 10 (could not be better) as [[rating]], such as "
    "[[6]].\n\n<|Conversation|>\n{conversation}\n\n<|The Start of the Answer|>\n{answer}\n<|The End of the Answer|>"
)
_RATING = re.compile(r"\[\[(\d+(?:\.\d+)?)\]\]")


def read_rating(reply: str | None) -> float | None:
    """The last [[rating]] in a judge's reply; None without a rating from 1 to 10."""
    ratings = _RATING.findall(reply or "")
    return float(ratings[-1]) if ratings and 1 <= float(ratings[-1]) <= 10 else None


class LLMJudgeReward(PointwiseReward):
    """A generator rates each response from 1 to 10. A reply without a rating is a null."""

    llm: LLM
    rubric: str
    seed: int = 0

    def load(self) -> None:
        self.llm.load()

    def unload(self) -> None:
        self.llm.unload()

    def score(self, conversations: Sequence[Conversation]) -> list[Score]:
        inputs: Any = [[{"role": "user", "content": self._question(conversation)}] for conversation in conversations]
        if not inputs:
            return []
        seeds = [derive_seed(self.seed, prompt_id(conversation.messages), conversation.response) for conversation in conversations]
        outputs = ask(self.llm, inputs, seeds)
        return [_judge_score(output) for output in outputs]

    def _question(self, conversation: Conversation) -> str:
        turns = "\n".join(f"{message['role']}: {message['content']}" for message in conversation.messages)
        return JUDGE_TEMPLATE.format(rubric=self.rubric, conversation=turns, answer=conversation.response)


def _judge_score(output: dict[str, Any]) -> Score:
    reply, failure = reply_of(output)
    statistics = totals(output["statistics"])
    if reply is None:
        return Score(None, failure, None, statistics)
    rating = read_rating(reply)
    return Score(rating, None if rating is not None else "no rating from 1 to 10 in the judge's reply", None, statistics)


def _with_reasons(failures: Sequence[str | None], finish_reasons: Sequence[str] | None) -> list[str | None]:
    """The failures, extended by the reason why there is no response, if known."""
    response_reasons = finish_reasons or [""] * len(failures)
    return [
        f"{failure}: {reason}" if failure == NO_RESPONSE and reason else failure
        for failure, reason in zip(failures, response_reasons, strict=True)
    ]


class RewardResponses(LoudStep):
    """Scores the responses of every row, all rows of a call together.

    Attributes:
        reward: the reward to apply.
        system_prompt: prepended to conversations without a system message; null = conversations stay unchanged.
        responses: the input column; the output columns are `rewards`, ... or `<prefix>rewards`, ... for `<prefix>responses`.

    Input columns:
        - messages, `responses`; reference (for verifiers), optional
    Output columns:
        - rewards (`list[float | None]`), failures (`list[str | None]`): the reasons of null rewards
        - objectives (ArmoRM), win_probability and win_matrix (pairwise rewards), reference_source and majority_reference (`majority`)
    Categories:
        - scorer
    """

    reward: RewardModel
    responses: str = "responses"
    system_prompt: str | None = None

    @property
    def inputs(self) -> list[str]:
        return ["messages", self.responses]

    @property
    def outputs(self) -> list[str]:
        prefix = self.responses.removesuffix("responses")
        return [prefix + column for column in self.reward.columns]

    def load(self) -> None:
        super().load()
        self.reward.load()

    def unload(self) -> None:
        self.reward.unload()

    def process(self, inputs: StepInput) -> StepOutput:
        prefix = self.responses.removesuffix("responses")
        column_dicts = self.reward.score_rows(
            [
                Candidates(
                    with_system_prompt(row["messages"], self.system_prompt),
                    row[self.responses],
                    row.get("reference"),
                    bool(row.get("generation")),
                )
                for row in inputs
            ]
        )
        for row, columns in zip(inputs, column_dicts, strict=True):
            statistics = columns.pop("statistics", {})
            columns["failures"] = _with_reasons(columns["failures"], row.get(f"{prefix}finish_reasons"))
            row.update({prefix + name: value for name, value in columns.items()})
            add_scores(row, columns["failures"], **statistics)
        yield inputs


def add_scores(row: dict[str, Any], failures: Sequence[str | None], **statistics: float) -> None:
    """Count the rewards of a row by the reasons of their failures (None = scored). A null response is no call, and no failed call."""
    other_reasons = [failure for failure in failures if failure in (NO_RESPONSE, NO_MAJORITY)]
    add_calls(row, *(failure for failure in failures if failure not in (NO_RESPONSE, NO_MAJORITY)))
    add_reasons(row, *map(str, other_reasons))
    add_statistics(row, responses=len(failures), unscored=sum(failure is not None for failure in failures), **statistics)
