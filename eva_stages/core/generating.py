"""Generators: distilabel's `LLM` with a seed per prompt, so that a resumed run samples the same responses.

Any distilabel pipeline can use these generators; without seeds they sample randomly.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

from distilabel.models.llms import LLM

from eva_stages.core.patches import remove_rich_tracebacks
from eva_stages.core.reasoning import UNFINISHED_THOUGHT, answer_of
from eva_stages.core.rows import Message

COSTS = ("input_tokens", "cost_usd", "estimated_calls", "estimated_usd", "unpriced_calls", "reused_calls", "reused_usd")
"""Counts of a call to a provider: the run's own costs (with the calls whose cost is an estimate and the sum of these, or whose price is
unknown), and reused responses with their original cost."""

NO_REPLY = "no reply"

remove_rich_tracebacks()


class GeneratorOutput(TypedDict):
    """The n responses to one prompt; None for a failed response, with the reason as finish reason."""

    generations: list[str | None]
    finish_reasons: list[str]
    statistics: dict[str, list[Any]]
    logprobs: NotRequired[list[Any]]
    """If requested: the tokens of each response with their most likely alternatives, in OpenAI's format."""
    token_ids: NotRequired[list[list[int] | None]]
    """From local generators: the sampled ids of each response, including the end token if there is one."""
    in_thought: NotRequired[bool]
    """Whether the prompt ended with the opening tag of a thought, which the responses then lack."""


class SeededLLM(LLM):
    """A distilabel `LLM` whose responses are a function of the given seeds."""

    @abstractmethod
    def generate(self, inputs: list[list[Message]], num_generations: int = 1, seeds: Sequence[int] | None = None) -> list[GeneratorOutput]:
        """Generate `num_generations` responses to every conversation.

        Args:
            inputs: chat messages, one list per prompt.
            seeds: one seed per prompt; the same seed and prompt result in the same responses, in any batch.

        Returns:
            One entry per prompt; `statistics` has `input_tokens` (of the prompt, repeated) and `output_tokens` per response, and for
            paid models the other `COSTS`, each response's share.
        """


def ask(llm: LLM, conversations: Any, seeds: Sequence[int] | None = None, num_generations: int = 1, keep_thoughts: bool = False) -> Any:
    """One output per conversation, from any distilabel `LLM`; seeds are passed to a `SeededLLM`.

    All responses pass through this function. It removes thoughts unless `keep_thoughts`; a response that ends within its thought becomes
    null, with the reason `unfinished_reasoning`. The `generation_kwargs` of distilabel's LLMs are passed to them.
    """
    seed_argument = {"seeds": seeds} if isinstance(llm, SeededLLM) and seeds is not None else {}
    settings = {**(llm.get_generation_kwargs() or {}), **seed_argument}
    outputs = llm.generate_outputs(inputs=conversations, num_generations=num_generations, **settings)
    outputs = [output if "finish_reasons" in output else completed_output(output, num_generations) for output in outputs]
    return outputs if keep_thoughts else [without_thoughts(output) for output in outputs]


def completed_output(output: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The output of an LLM of distilabel with `count` responses, and with reasons and numbers of tokens: null where they are not known.

    Its log-probabilities have another format than `GeneratorOutput` and are left out.
    """
    texts = list(output["generations"] or ())[:count]
    missing_reason = NO_REPLY if len(texts) == count else f"the LLM returned {len(texts)} of {count} responses"
    statistics = output.get("statistics") or {}
    counts = {name: list(statistics.get(name) or ()) for name in ("input_tokens", "output_tokens")}
    texts = _padded_values(texts, count)
    return {
        "generations": texts,
        "finish_reasons": [missing_reason if text is None else None for text in texts],
        "statistics": {name: _padded_values(values, count) for name, values in counts.items()},
    }


def _padded_values(values: list[Any], count: int) -> list[Any]:
    return values[:count] + [None] * (count - len(values))


def without_thoughts(output: Any) -> Any:
    """An output without the thoughts in its texts."""
    texts = output["generations"]
    answers = [None if text is None else answer_of(text, output.get("in_thought", False)) for text in texts]
    reasons = [
        UNFINISHED_THOUGHT if answer is None and text is not None else reason
        for text, answer, reason in zip(texts, answers, output["finish_reasons"], strict=True)
    ]
    return {**output, "generations": answers, "finish_reasons": reasons}


def reply_of(output: Any) -> tuple[str | None, str | None]:
    """The single reply in an output of `ask`: (text, None), or (None, reason)."""
    text = output["generations"][0]
    return text, None if text is not None else str(output["finish_reasons"][0] or NO_REPLY)


def generator_output(
    texts: Sequence[str | None], reasons: Sequence[str], input_tokens: int, output_tokens: Sequence[int]
) -> GeneratorOutput:
    statistics = {"input_tokens": [input_tokens] * len(texts), "output_tokens": list(output_tokens)}
    return {"generations": list(texts), "finish_reasons": list(reasons), "statistics": statistics}


def totals(statistics: dict[str, list[Any]]) -> dict[str, float]:
    """Sums over the responses to a prompt: tokens, as far as they are known, and costs if any."""
    known_values = {name: [value for value in values if value is not None] for name, values in statistics.items()}
    sums = {name: sum(values) for name, values in known_values.items() if name != "input_tokens"}
    return {"input_tokens": max(known_values["input_tokens"], default=0), **sums}
