"""What eva asks of a generator beyond distilabel's `LLM`: a seed per prompt, so that a resumed run draws the same responses.

Any distilabel pipeline can use these generators; without seeds they sample freely.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

from distilabel.models.llms import LLM

from eva_stages.core.rows import Message

COSTS = ("input_tokens", "cost_usd", "estimated_calls", "unpriced_calls", "reused_calls", "reused_usd")
"""What a call to a provider is counted by: money that this run sent (and of how many calls it is our estimate, or no price is known), and
answers that were paid for before, with what they cost then."""


class Generated(TypedDict):
    """The n responses to one prompt; None where the generator failed, with the reason as finish reason."""

    generations: list[str | None]
    finish_reasons: list[str]
    statistics: dict[str, list[Any]]
    logprobs: NotRequired[list[Any]]
    """Where they were asked for: per response its tokens with the most likely alternatives, in OpenAI's form."""


class SeededLLM(LLM):
    """A distilabel `LLM` whose draws are a function of the seeds it is given."""

    @abstractmethod
    def generate(self, inputs: list[list[Message]], num_generations: int = 1, seeds: Sequence[int] | None = None) -> list[Generated]:
        """Answer every conversation `num_generations` times.

        Args:
            inputs: chat messages, one list per prompt.
            seeds: one seed per prompt; the same seed and prompt give the same responses, in whatever batch they are.

        Returns:
            One entry per prompt; `statistics` has `input_tokens` (of the prompt, repeated) and `output_tokens` per response, and for
            paid models the other `COSTS`, each response's share.
        """


def ask(llm: LLM, conversations: Any, seeds: Sequence[int], num_generations: int = 1) -> Any:
    """One output per conversation, of any distilabel `LLM`; the seeds go to those that take them."""
    seeded = {"seeds": seeds} if isinstance(llm, SeededLLM) else {}
    return llm.generate_outputs(inputs=conversations, num_generations=num_generations, **seeded)


def reply_of(output: Any) -> tuple[str | None, str | None]:
    """The one reply in an output of `ask`, and why there is none: (text, None), or (None, reason)."""
    text = output["generations"][0]
    return text, None if text is not None else str(output["finish_reasons"][0] or "no reply")


def generated(texts: Sequence[str | None], reasons: Sequence[str], input_tokens: int, output_tokens: Sequence[int]) -> Generated:
    statistics = {"input_tokens": [input_tokens] * len(texts), "output_tokens": list(output_tokens)}
    return {"generations": list(texts), "finish_reasons": list(reasons), "statistics": statistics}


def totals(statistics: dict[str, list[Any]]) -> dict[str, float]:
    """What one prompt's generation took: tokens, and money where there was any."""
    counted = {name: sum(values) for name, values in statistics.items() if name != "input_tokens"}
    return {"input_tokens": max(statistics["input_tokens"], default=0), **counted}
