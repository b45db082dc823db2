"""The worst-case and the actual cost of a call to a provider.

The worst case of a call is its prompt's tokens, counted locally, plus the longest possible response. It is reserved before the call is
sent. The provider's token counts are accepted if they are plausible: integers above 0 that some provider could count. Otherwise the call
is counted at its worst case and reported as estimated. Because tokenizers, chat templates and hidden thoughts differ, a provider may count
up to `MORE_TIMES` the worst case plus `MORE_TOKENS`; observed ratios above 1 scale later worst cases. An accepted cost above its
reservation counts up to the cap (`Journal.settle`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eva_stages.core.patches import import_litellm
from eva_stages.models.providers import token_rates

MORE_TIMES, MORE_TOKENS = 2.0, 512


@dataclass(frozen=True)
class WorstCase:
    """The most that a call can use; `usd` is 0 if the price is unknown."""

    input_tokens: int
    output_tokens: int
    usd: float


@dataclass(frozen=True)
class Charge:
    """The cost of a call. `is_estimate`: the worst case, because the provider reported no usage or an implausible usage."""

    usd: float
    is_estimate: bool
    input_tokens: int
    output_tokens: int | None
    """None if the provider did not report it."""
    is_implausible: bool = False
    """Whether the provider reported more than the call can have used."""


class Prices:
    """The price of a model's tokens.

    Attributes:
        rates: US dollars per input and output token; None if the price is unknown.
    """

    def __init__(self, model: str, price: Mapping[str, float] | None) -> None:
        self._model = model
        self.rates = token_rates(model, price)
        self._ratios = (1.0, 1.0)

    def worst_case(self, request: Mapping[str, Any]) -> WorstCase:
        """The most that a request can use and cost."""
        # without a price, only the check for plausible usage needs it, for which bytes are precise enough
        tokens = self._prompt_tokens(request) if self.rates else sum(len(str(message).encode()) for message in request["messages"])
        tokens_out = request["max_tokens"] * request.get("n", 1)
        return WorstCase(tokens, tokens_out, self._usd(round(tokens * self._ratios[0]), round(tokens_out * self._ratios[1])))

    def charge(self, usage: Any, request: Mapping[str, Any], worst: WorstCase) -> Charge:
        """The cost of a call by its reported usage, or by its worst case.

        Args:
            usage: the `usage` field of the response, of any type.
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
        schema = json.dumps(request["response_format"]) if "response_format" in request else ""
        tokens = count_tokens(self._model, messages=request["messages"], tools=request.get("tools"))
        return tokens + (count_tokens(self._model, text=schema) if schema else 0)

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
    """Ratio of reported to expected tokens, after subtracting what a template may add."""
    return (reported_tokens - MORE_TOKENS) / max(1, worst_tokens)


def _whole_number(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
