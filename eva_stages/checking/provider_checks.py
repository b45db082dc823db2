"""What a recipe asks of providers, before any money is spent: their keys, prices and limits; and, if wanted, whether they answer.

The first part makes no network call. The second, `ask_servers`, asks every server of the recipe one question with one token of answer, by
the same client that the stages use, and counts what that costs.
"""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from eva_stages.core.config.models_config import LiteLLMModel
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.section import Section
from eva_stages.core.errors import ConfigError, HubError, MissingKeyError, StageError
from eva_stages.core.progress import dollars
from eva_stages.core.terminal import note
from eva_stages.models.providers import most_new_tokens, provider_key, provider_of, token_rates

QUESTION = "Reply with one word: hello"
DEADLINE = 20.0
"""Seconds in which a server has to answer its question."""
UNANSWERED = ("gave up", "refused")
"""How the reasons of calls begin to which there was no answer."""


def check_provider(player: LiteLLMModel, place: str) -> None:
    """A model behind a provider is one that can be asked with the recipe's settings.

    Args:
        place: where it stands in the recipe, for errors.

    Raises:
        ConfigError: with everything that is wrong with it.
        MissingKeyError: if only its key is not there.
    """
    faults = []
    address = urlsplit(player.api_base or "http://provider")
    if address.scheme not in ("http", "https") or not address.hostname:
        faults.append(f"{place}.api_base: {player.api_base!r} is not the address of a server; give one such as http://127.0.0.1:8000/v1")
    if provider_of(player.model) is None:
        faults.append(f"{place}.model: LiteLLM knows no provider of {player.model}; give provider/model, such as openai/{player.model}")
        raise ConfigError(faults)
    price = player.runtime.price.model_dump() if player.runtime.price else None
    if player.runtime.max_cost_usd is not None and token_rates(player.model, price) is None:
        faults.append(
            f"{place}.runtime.price: max_cost_usd is {player.runtime.max_cost_usd:g}, and LiteLLM knows no price of {player.model}; "
            "give its price as {input: ..., output: ...}, in US dollars per million tokens"
        )
    most = most_new_tokens(player.model) if player.api_base is None else None
    if most is not None and player.max_new_tokens > most:
        faults.append(
            f"{place}.max_new_tokens: is {player.max_new_tokens}, and {player.model} answers with at most {most}; give at most that"
        )
    if faults:
        raise ConfigError(faults)
    provider_key(player.model, player.api_base, player.runtime.api_key_env, place)


def provider_players(value: Any, place: str = "") -> Iterator[tuple[str, LiteLLMModel]]:
    """Every model behind a provider in a recipe, with its place."""
    match value:
        case LiteLLMModel():
            yield place, value
        case Section():
            for name in type(value).model_fields:
                yield from provider_players(value.__dict__[name], f"{place}.{name}".strip("."))
        case list() | tuple():
            for index, item in enumerate(value):
                yield from provider_players(item, f"{place}.{index}")


def ask_servers(recipe: Recipe) -> list[str]:
    """Ask every server of a recipe one question, under its key; the Hub too, where the recipe publishes.

    Returns:
        What there is to tell: how many were asked, and what that cost.

    Raises:
        ConfigError: with every server that cannot be reached or refuses, and what to do.
    """
    servers: dict[tuple[str, str | None, str | None], list[str]] = {}
    players: dict[tuple[str, str | None, str | None], LiteLLMModel] = {}
    for place, player in provider_players(recipe):
        server = player.model, player.api_base, player.runtime.api_key_env
        servers.setdefault(server, []).append(place)
        players.setdefault(server, player)
    faults, cost, unpriced = list[str](), 0.0, 0
    for server, places in servers.items():
        try:
            usd = _ask(players[server], places[0])
        except ConfigError as error:
            faults += error.faults
            continue
        unpriced += usd is None
        cost += usd or 0.0
    if recipe.publish:
        faults += _hub_faults(recipe.publish.to)
    if faults:
        raise ConfigError(faults)
    told = f"; of {unpriced} no price is known" if unpriced else ""
    return [f"{len(servers)} of {len(servers)} servers answer; asking them cost {dollars(cost)} USD{told}"]


def _ask(player: LiteLLMModel, place: str) -> float | None:
    """US dollars that asking cost; None where no price is known.

    Raises:
        ConfigError: if there was no answer.
    """
    from eva_stages.models.litellm_generator import LiteLLMGenerator

    runtime = player.runtime
    asker = LiteLLMGenerator(
        model=player.model,
        api_base=player.api_base,
        api_key_env=runtime.api_key_env,
        price=runtime.price.model_dump() if runtime.price else None,
        temperature=player.temperature,
        top_p=player.top_p,
        max_new_tokens=1,
        attempts=1,
        timeout=min(DEADLINE, runtime.timeout),
        max_wait=0.0,
    )
    where = player.api_base or "its provider"
    try:
        asker.load()
        (output,) = asker.generate([[{"role": "user", "content": QUESTION}]], 1, [0])
    except MissingKeyError as error:
        raise ConfigError([f"{place}: {fault.partition(': ')[2]}" for fault in error.faults]) from error
    except StageError as error:
        raise ConfigError([f"{place}: {where} {str(error).removeprefix(f'{player.model} ')}"]) from error
    finally:
        asker.unload()
    reason = output["finish_reasons"][0]
    if output["generations"][0] is None and reason.startswith(UNANSWERED):
        cause = reason.partition(": ")[2]
        raise ConfigError([f"{place}: {player.model} at {where} does not answer ({cause}); start it, or correct model, api_base or key"])
    statistics = output["statistics"]
    return None if "unpriced_calls" in statistics else sum(statistics.get("cost_usd", []))


def _hub_faults(namespace: str) -> list[str]:
    from eva_stages.publishing.hub import Hub

    try:
        Hub(note).check_account(namespace)
    except HubError as error:
        return [f"publish: {error}; the run would go on without it"]
    except ConfigError as error:
        return [f"publish: {fault}" for fault in error.faults]
    return []
