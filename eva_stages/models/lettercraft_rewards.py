"""Lettercraft's own rewards: its grade, one that errs, one that can be hacked, and a verifier of references. They cost nothing."""

from collections.abc import Sequence

from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.rows import Message, last_user_text
from eva_stages.lettercraft.language import Instruction, exact_grade, final_word, grade, parse, proxy_grade
from eva_stages.models.rewards import Conversation, PointwiseReward, Score


def lettercraft(messages: list[Message], response: str, reference: str | None) -> float:
    """1.0 if the result in a response equals the prompt's reference, else 0.0. A wrong reference makes wrong results right.

    Raises:
        ValueError: a missing reference.
    """
    if reference is None or not reference.strip():
        raise ValueError("no reference to check against; set prompts.references and creator.evolve.returns: prompt_and_reference")
    return float(final_word(response) == reference.strip())


class LettercraftReward(PointwiseReward):
    """Lettercraft's grade.

    Attributes:
        exact: no partial credit. No response to a prompt that has no answer is exact, so its reward is 0; partial credit has none.
    """

    exact: bool = False

    def score(self, conversations: Sequence[Conversation]) -> list[Score]:
        return [self._score(parse(last_user_text(messages)), response) for messages, response, _ in conversations]

    def _score(self, instruction: Instruction | None, response: str) -> Score:
        if self.exact:
            return Score(exact_grade(instruction, response))
        return Score(grade(instruction, response)) if instruction and instruction.answer else Score(None, "not a Lettercraft instruction")


class LettercraftProxyReward(PointwiseReward):
    """Lettercraft's reward that pays for long results."""

    def score(self, conversations: Sequence[Conversation]) -> list[Score]:
        return [Score(proxy_grade(parse(last_user_text(messages)), response)) for messages, response, _ in conversations]


class LettercraftNoisyReward(PointwiseReward):
    """Lettercraft's exact grade, wrong for a share of the responses.

    Attributes:
        errors: this share.
    """

    errors: float = 0.0

    def score(self, conversations: Sequence[Conversation]) -> list[Score]:
        return [self._score(last_user_text(messages), response) for messages, response, _ in conversations]

    def _score(self, text: str, response: str) -> Score:
        is_wrong = derive_seed("noisy reward", text, response) < self.errors * 2**63
        reward = exact_grade(parse(text), response)
        return Score(1.0 - reward if is_wrong else reward)
