"""What a recipe needs of this machine: packages, GPUs, keys, room, and servers that can be reached.

Nothing that the recipe names is read, and without `online` nothing is sent. With it, each server gets a connection and no request, so
nothing can cost anything; `eva validate --online` asks each of them a question.
"""

import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from eva_stages.checking.provider_checks import providers
from eva_stages.checking.recipe_checks import MACHINE_CHECKS, errors_of
from eva_stages.checking.recipe_references import WITH_MODEL, sections
from eva_stages.checking.solver_checks import trainings
from eva_stages.core.config.engine_config import RayEngine
from eva_stages.core.config.models_config import LiteLLMModel
from eva_stages.core.config.prompts_config import HubPrompts
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.solver_config import OnPolicyLoss
from eva_stages.core.errors import MissingKeyError, describe
from eva_stages.core.resolved import Resolved
from eva_stages.doctor.device_findings import GPUs
from eva_stages.doctor.findings import Row, State
from eva_stages.solver.launch_file import missing_gpus, read_launch_file

CONNECT_SECONDS = 5
PORTS = {"http": 80, "https": 443}


def recipe_rows(recipe: Recipe, gpus: GPUs, online: bool) -> Iterator[Row]:
    """What the recipe needs, and whether it is here."""
    faults = errors_of(recipe, Resolved(), MACHINE_CHECKS)
    for fault in faults:
        value, command, packages = fault.partition(": pip install ")
        yield Row("packages", State.ERROR, value, f"{command.removeprefix(': ')}{packages}")
    if not faults:
        yield Row("packages", State.OK, "what the recipe needs is installed")
    yield from _launch_rows(recipe, gpus)
    yield from _key_rows(recipe)
    yield from _account_rows(recipe)
    yield from _server_rows(recipe, online)


def _launch_rows(recipe: Recipe, gpus: GPUs) -> Iterator[Row]:
    """Whether this machine has the GPUs of the launch files."""
    for place, training in trainings(recipe):
        launch, file = training.runtime.launch, read_launch_file(training.runtime.launch)
        if file.machines > 1:
            yield Row("launch file", State.OMISSION, f"{launch} is for {file.machines} machines, which cannot be checked from this one")
        elif missing := missing_gpus(launch, gpus.visible_count):
            value, advice = missing
            yield Row("launch file", State.ERROR, f"{place}.runtime.launch: {value}", advice)
        else:
            yield Row("launch file", State.OK, f"{launch}: {file.processes} process{'es' if file.processes > 1 else ''}")


def _key_rows(recipe: Recipe) -> Iterator[Row]:
    """Whether the keys of providers are in the environment. They are not shown."""
    from eva_stages.models.providers import NO_KEY, provider_key

    for place, model in _servers(recipe):
        try:
            key = provider_key(model.model, model.api_base, model.runtime.api_key_env, place)
        except MissingKeyError as error:
            yield from (Row("key", State.ERROR, fault) for fault in error.faults)
            continue
        variable = model.runtime.api_key_env or "the provider's variable"
        value = "none, and its server gets none" if key == NO_KEY else f"present in {variable}, not shown"
        yield Row("key", State.OK, f"{model.model}: {value}")


def _servers(recipe: Recipe) -> list[tuple[str, LiteLLMModel]]:
    """Every model behind a provider once, with its first place."""
    servers: dict[tuple[str, str | None, str | None], tuple[str, LiteLLMModel]] = {}
    for place, model in providers(recipe):
        servers.setdefault((model.model, model.api_base, model.runtime.api_key_env), (place, model))
    return list(servers.values())


def _account_rows(recipe: Recipe) -> Iterator[Row]:
    from huggingface_hub import get_token

    if recipe.publish is not None and get_token() is None:
        yield Row(
            "publish", State.ERROR, f"there is no token of the Hub to push to {recipe.publish.to} with", "hf auth login, or export HF_TOKEN"
        )


def _server_rows(recipe: Recipe, online: bool) -> Iterator[Row]:
    """Whether the servers of the recipe accept connections."""
    from huggingface_hub.constants import ENDPOINT

    engine, loss, addresses = recipe.runtime.engine, recipe.solver.loss, dict[str, tuple[str, str]]()
    for _, model in _servers(recipe):
        if model.api_base:
            addresses.setdefault(model.api_base, ("server", f"start the server of {model.model}, or correct api_base"))
    if isinstance(loss, OnPolicyLoss) and loss.runtime.server:
        addresses[loss.runtime.server] = "vLLM server", "start it as docs/on_policy.md shows, or correct solver.loss.runtime.server"
    if isinstance(engine, RayEngine) and engine.address != "auto":
        addresses[f"ray://{engine.address}"] = "Ray cluster", "ray start --head on its first machine, or runtime.engine.kind=local"
    if _uses_hub(recipe):
        fix = "check the network (HTTPS_PROXY); models and data that are in the cache work without: export HF_HUB_OFFLINE=1"
        addresses[ENDPOINT] = "Hub", fix
    for address, (name, fix) in addresses.items():
        if not online:
            yield Row(name, State.OMISSION, f"{address} was not contacted", "--online connects to it and asks nothing, so it costs nothing")
        elif fault := _connection_fault(address):
            yield Row(name, State.ERROR, f"{address}: {fault}", fix)
        else:
            yield Row(name, State.OK, f"{address} accepts connections")
    unknown_names = [model.model for _, model in _servers(recipe) if not model.api_base]
    if unknown_names:
        yield Row(
            "providers",
            State.OMISSION,
            f"{', '.join(unknown_names)}: not contacted",
            "eva validate --online asks each one cheap question",
        )


def _uses_hub(recipe: Recipe) -> bool:
    """Whether a model or the prompts have a Hub id, or the recipe publishes."""
    models = [section.model for _, section in sections(recipe) if isinstance(section, WITH_MODEL)]
    has_hub_model = any("/" in model and not Path(model).is_absolute() for model in models)
    return has_hub_model or isinstance(recipe.prompts, HubPrompts) or recipe.publish is not None


def _connection_fault(address: str) -> str:
    """Why a server accepts no connection; empty if it does."""
    parts = urlsplit(address)
    try:
        socket.create_connection((parts.hostname or "", parts.port or PORTS.get(parts.scheme, 0)), timeout=CONNECT_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        return describe(error)
    return ""
