"""What eva asks of a generator beyond distilabel's `LLM`: a seed per prompt, so that a resumed run draws the same responses.

Any distilabel pipeline can use these generators; without seeds they sample freely.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

from distilabel.models.llms import LLM

from eva_stages.core.patches import remove_rich_tracebacks
from eva_stages.core.reasoning import UNFINISHED, answer_of
from eva_stages.core.rows import Message

COSTS = ("input_tokens", "cost_usd", "estimated_calls", "unpriced_calls", "reused_calls", "reused_usd")
"""What a call to a provider is counted by: money that this run sent (and of how many calls it is our estimate, or no price is known), and
answers that were paid for before, with what they cost then."""


remove_rich_tracebacks()


class Generated(TypedDict):
    """The n responses to one prompt; None where the generator failed, with the reason as finish reason."""

    generations: list[str | None]
    finish_reasons: list[str]
    statistics: dict[str, list[Any]]
    logprobs: NotRequired[list[Any]]
    """Where they were asked for: per response its tokens with the most likely alternatives, in OpenAI's form."""
    token_ids: NotRequired[list[list[int] | None]]
    """Of generators that run here: the ids of each response as they were sampled, with the end token if it came to one."""
    opened: NotRequired[bool]
    """Whether the prompt ended within a thought, whose opening tag the responses then do not have."""


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


def ask(llm: LLM, conversations: Any, seeds: Sequence[int] | None = None, num_generations: int = 1, keep_thoughts: bool = False) -> Any:
    """One output per conversation, of any distilabel `LLM`; the seeds go to those that take them.

    All responses pass here on their way to a reader. Thoughts are left out unless `keep_thoughts`; a response that ends within its
    thought is then null, with the reason `unfinished_reasoning`.
    """
    seeded = {"seeds": seeds} if isinstance(llm, SeededLLM) and seeds is not None else {}
    outputs = llm.generate_outputs(inputs=conversations, num_generations=num_generations, **seeded)
    return outputs if keep_thoughts else [without_thoughts(output) for output in outputs]


def without_thoughts(output: Any) -> Any:
    """An output whose texts are answers alone."""
    texts = output["generations"]
    answers = [None if text is None else answer_of(text, output.get("opened", False)) for text in texts]
    reasons = [
        UNFINISHED if answer is None and text is not None else reason
        for text, answer, reason in zip(texts, answers, output["finish_reasons"], strict=True)
    ]
    return {**output, "generations": answers, "finish_reasons": reasons}


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
