"""Checks of providers before any money is spent: keys, prices and limits; with --online, whether they respond.

The first part makes no network call. The second, `ask_servers`, asks every server of the recipe one question with one token of answer, by
the same client that the stages use, and counts what that costs.
"""

from collections.abc import Iterator
from urllib.parse import urlsplit

from eva_stages.checking.on_policy_checks import sampling_server
from eva_stages.checking.recipe_references import sections
from eva_stages.core.config.models_config import LiteLLMModel
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.errors import ConfigError, MissingKeyError, StageError
from eva_stages.core.progress import dollars
from eva_stages.core.resolved import Resolved
from eva_stages.models.providers import most_new_tokens, provider_key, provider_of, token_rates

QUESTION = "Reply with one word: hello"
DEADLINE = 20.0
"""Seconds in which a server has to answer its question."""
NO_RESPONSE = ("gave up", "refused")
"""How the reasons of calls begin to which there was no answer."""


def check_providers(recipe: Recipe, _: Resolved) -> Iterator[str]:
    """Every model behind a provider accepts the recipe's settings."""
    for place, model in providers(recipe):
        yield from _provider_faults(model, place)


def missing_keys(recipe: Recipe, _: Resolved) -> Iterator[str]:
    """Every missing key of a provider, with the place of the model that needs it."""
    for place, model in providers(recipe):
        try:
            if not any(_provider_faults(model, place)):
                provider_key(model.model, model.api_base, model.runtime.api_key_env, place)
        except MissingKeyError as error:
            yield from error.faults


def providers(recipe: Recipe) -> Iterator[tuple[str, LiteLLMModel]]:
    """Every model behind a provider in a recipe, with its place."""
    return ((place, section) for place, section in sections(recipe) if isinstance(section, LiteLLMModel))


def _provider_faults(model: LiteLLMModel, place: str) -> Iterator[str]:
    address = urlsplit(model.api_base or "http://provider")
    if address.scheme not in ("http", "https") or not address.hostname:
        yield f"{place}.api_base: {model.api_base!r} is not the address of a server; give one such as http://127.0.0.1:8000/v1"
    if provider_of(model.model) is None:
        yield f"{place}.model: LiteLLM knows no provider of {model.model}; give provider/model, such as openai/{model.model}"
        return
    price = model.runtime.price.model_dump() if model.runtime.price else None
    if model.runtime.max_cost_usd is not None and token_rates(model.model, price) is None:
        yield (
            f"{place}.runtime.price: max_cost_usd is {model.runtime.max_cost_usd:g}, and LiteLLM knows no price of {model.model}; "
            "give its price as {input: ..., output: ...}, in US dollars per million tokens"
        )
    token_limit = most_new_tokens(model.model) if model.api_base is None else None
    if token_limit is not None and model.max_new_tokens > token_limit:
        tokens = model.max_new_tokens
        yield f"{place}.max_new_tokens: is {tokens}, and {model.model} answers with at most {token_limit}; give at most that"


def ask_servers(recipe: Recipe) -> list[str]:
    """Ask every server of a recipe one question, under its key.

    Returns:
        Notes: how many servers responded, what that cost, and whether the vLLM server of on-policy training is fit for it.

    Raises:
        ConfigError: with every server that cannot be reached or refuses, and what to do.
    """
    servers: dict[tuple[str, str | None, str | None], tuple[str, LiteLLMModel]] = {}
    for place, model in providers(recipe):
        servers.setdefault((model.model, model.api_base, model.runtime.api_key_env), (place, model))
    faults, notes = sampling_server(recipe)
    cost, unpriced_servers = 0.0, 0
    for place, model in servers.values():
        try:
            usd = _ask(model, place)
        except ConfigError as error:
            faults += error.faults
            continue
        unpriced_servers += usd is None
        cost += usd or 0.0
    if faults:
        raise ConfigError(faults)
    price_note = f"; of {unpriced_servers} no price is known" if unpriced_servers else ""
    return [*notes, f"{len(servers)} of {len(servers)} servers answer; asking them cost {dollars(cost)} USD{price_note}"]


def _ask(model: LiteLLMModel, place: str) -> float | None:
    """US dollars that asking cost; None where no price is known.

    Raises:
        ConfigError: if there was no answer.
    """
    from eva_stages.models.litellm_generator import LiteLLMGenerator

    runtime = model.runtime
    asker = LiteLLMGenerator(
        model=model.model,
        api_base=model.api_base,
        api_key_env=runtime.api_key_env,
        price=runtime.price.model_dump() if runtime.price else None,
        temperature=model.temperature,
        top_p=model.top_p,
        max_new_tokens=1,
        attempts=1,
        timeout=min(DEADLINE, runtime.timeout),
        max_wait=0.0,
    )
    where = model.api_base or "its provider"
    try:
        asker.load()
        (output,) = asker.generate([[{"role": "user", "content": QUESTION}]], 1, [0])
    except MissingKeyError as error:
        raise ConfigError([f"{place}: {fault.partition(': ')[2]}" for fault in error.faults]) from error
    except StageError as error:
        raise ConfigError([f"{place}: {where} {str(error).removeprefix(f'{model.model} ')}"]) from error
    finally:
        asker.unload()
    reason = output["finish_reasons"][0]
    if output["generations"][0] is None and reason.startswith(NO_RESPONSE):
        cause = reason.partition(": ")[2]
        raise ConfigError([f"{place}: {model.model} at {where} does not respond ({cause}); start it, or correct model, api_base or key"])
    statistics = output["statistics"]
    return None if "unpriced_calls" in statistics else sum(statistics.get("cost_usd", []))
