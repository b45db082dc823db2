"""API key, prices and limits of a provider, known before anything starts.

Recipes and artifacts never contain keys. Prices come from LiteLLM's packaged list or from the recipe.
"""

import os
from collections.abc import Mapping
from typing import Any

from eva_stages.core.errors import MissingKeyError
from eva_stages.core.patches import import_litellm
from eva_stages.core.redaction import add_secret_variable

NO_KEY = "none"
SETTINGS = (
    "temperature",
    "top_p",
    "max_tokens",
    "n",
    "stop",
    "seed",
    "logprobs",
    "top_logprobs",
    "tools",
    "tool_choice",
    "response_format",
)
"""Settings of a request that some models do not support."""
PER_MILLION = 1e-6


def provider_key(model: str, api_base: str | None, variable: str | None, place: str) -> str | None:
    """The API key; None if LiteLLM reads the provider's usual variable.

    A local server needs no key, but the client libraries require a value.

    Args:
        model: LiteLLM's name.
        api_base: address of an OpenAI-compatible server, if the recipe has one.
        variable: environment variable with the key, if the recipe names one.
        place: the recipe field, for errors.

    Raises:
        MissingKeyError: if a required key is missing.
    """
    if variable is not None:
        add_secret_variable(variable)
        if key := os.environ.get(variable):
            return key
        raise MissingKeyError([f"{place}.runtime.api_key_env: the environment variable {variable} is not set; export it with the key"])
    missing = import_litellm().validate_environment(model)["missing_keys"]
    if missing and api_base is None:
        names = " and ".join(missing)
        raise MissingKeyError([f"{place}.model: {model} needs {names} in the environment; export it, or name a variable in api_key_env"])
    return NO_KEY if missing else None


def token_rates(model: str, price: Mapping[str, float] | None) -> tuple[float, float] | None:
    """US dollars per input and output token; None if the price is unknown.

    Args:
        price: dollars per million tokens, `input` and `output`, from the recipe.
    """
    if price is not None:
        return price["input"] * PER_MILLION, price["output"] * PER_MILLION
    info = _listed_facts(model)
    rates = info.get("input_cost_per_token"), info.get("output_cost_per_token")
    return None if rates[0] is None or rates[1] is None else (float(rates[0]), float(rates[1]))


def dropped_settings(model: str, request: Mapping[str, Any]) -> list[str]:
    """Settings of a request that a model does not support according to LiteLLM; every call omits them."""
    litellm = import_litellm()
    litellm.drop_params = False
    try:
        _, provider, _, _ = litellm.get_llm_provider(model, api_base=request.get("api_base"))
        return [name for name in SETTINGS if request.get(name) is not None and _is_refused(model, provider, name, request[name])]
    finally:
        litellm.drop_params = True


def _is_refused(model: str, provider: str, name: str, value: Any) -> bool:
    litellm = import_litellm()
    try:
        litellm.utils.get_optional_params(model=model.removeprefix(f"{provider}/"), custom_llm_provider=provider, **{name: value})
    except litellm.exceptions.UnsupportedParamsError:
        return True
    return False


def provider_of(model: str) -> str | None:
    """LiteLLM's provider for a model; None if unknown."""
    litellm = import_litellm()
    try:
        return str(litellm.get_llm_provider(model)[1])
    except litellm.exceptions.BadRequestError:
        return None


def most_new_tokens(model: str) -> int | None:
    """Longest response of a model in tokens, from LiteLLM's list; None if unknown."""
    limit = _listed_facts(model).get("max_output_tokens")
    return int(limit) if limit else None


def _listed_facts(model: str) -> Mapping[str, Any]:
    """LiteLLM's facts about a model; empty if it is not listed."""
    try:
        facts: Mapping[str, Any] = import_litellm().get_model_info(model)
    except Exception:  # for an unlisted model, the type of the error depends on the provider
        return {}
    return facts
