"""What a call to a provider can cost, and what it did cost.

The worst case of a call: the tokens of its prompt as counted here, and all the tokens that it may answer with. It is set aside before the
call is sent. The provider's own figures are believed where they are plausible: whole numbers, neither of them 0, and no more than some
provider could count. Otherwise the worst case counts, and the call is reported as estimated. Tokenizers, chat templates and hidden thoughts
differ, so a provider may count up to `MORE_TIMES` as many tokens as the worst case has and `MORE_TOKENS` more; ratios above 1 that it has
shown are applied to the worst cases that follow. What is believed beyond a worst case counts up to the cap (`Journal.settle`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eva_stages.core.patches import import_litellm
from eva_stages.models.providers import token_rates

MORE_TIMES, MORE_TOKENS = 2.0, 512


@dataclass(frozen=True)
class WorstCase:
    """The most that one call can use; `usd` is 0 where no price is known."""

    input_tokens: int
    output_tokens: int
    usd: float


@dataclass(frozen=True)
class Charge:
    """What one call cost. Estimated: the worst case, because the provider did not say, or said what cannot be."""

    usd: float
    is_estimate: bool
    input_tokens: int
    output_tokens: int | None
    """None where the provider did not say."""
    is_implausible: bool = False
    """Whether the provider reported more than the call can have used."""


class Prices:
    """The price of a model's tokens.

    Attributes:
        rates: US dollars per token in and out; None where no price is known.
    """

    def __init__(self, model: str, price: Mapping[str, float] | None) -> None:
        self._model = model
        self.rates = token_rates(model, price)
        self._ratios = (1.0, 1.0)

    def worst_case(self, request: Mapping[str, Any]) -> WorstCase:
        """What a request can use and cost at most."""
        # without a price it only has to tell what is plausible, so the bytes of a text do
        tokens = self._prompt_tokens(request) if self.rates else sum(len(str(message).encode()) for message in request["messages"])
        tokens_out = request["max_tokens"] * request.get("n", 1)
        return WorstCase(tokens, tokens_out, self._usd(round(tokens * self._ratios[0]), round(tokens_out * self._ratios[1])))

    def charge(self, usage: Any, request: Mapping[str, Any], worst: WorstCase) -> Charge:
        """What a call cost by the usage that its answer reports, or by its worst case.

        Args:
            usage: the `usage` of the answer, whatever it is.
        """
        reported_usage = usage if isinstance(usage, Mapping) else {}
        tokens_in, tokens_out = (_whole_number(reported_usage.get(name)) for name in ("prompt_tokens", "completion_tokens"))
        if tokens_in is None or tokens_out is None or tokens_in <= 0 or tokens_out <= 0:
            return Charge(worst.usd, True, self._prompt_tokens(request), None)
        if not _is_plausible(tokens_in, worst.input_tokens) or not _is_plausible(tokens_out, worst.output_tokens):
            return Charge(worst.usd, True, self._prompt_tokens(request), None, is_implausible=True)
        self._ratios = (
            max(self._ratios[0], _ratio(tokens_in, worst.input_tokens)),
            max(self._ratios[1], _ratio(tokens_out, worst.output_tokens)),
        )
        return Charge(self._usd(tokens_in, tokens_out), False, tokens_in, tokens_out)

    def _prompt_tokens(self, request: Mapping[str, Any]) -> int:
        return count_tokens(self._model, messages=request["messages"], tools=request.get("tools"))

    def _usd(self, input_tokens: int, output_tokens: int) -> float:
        return 0.0 if self.rates is None else input_tokens * self.rates[0] + output_tokens * self.rates[1]


def count_tokens(model: str, **content: Any) -> int:
    """Tokens of `text`, or of `messages` with `tools`, by LiteLLM's tokenizer for a model; no network call."""
    litellm = import_litellm()
    litellm.disable_hf_tokenizer_download = True
    return int(litellm.token_counter(model=model, **content))


def _is_plausible(reported_tokens: int, worst_tokens: int) -> bool:
    return reported_tokens <= worst_tokens * MORE_TIMES + MORE_TOKENS


def _ratio(reported_tokens: int, worst_tokens: int) -> float:
    """How many times as many tokens were reported, beyond what a template may add."""
    return (reported_tokens - MORE_TOKENS) / max(1, worst_tokens)


def _whole_number(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
