"""Custom reward functions and verifiers: that they can be called, and that what they check against is there."""

import inspect
from collections.abc import Callable
from typing import Any

from eva_stages.checking.function_sources import check_consent
from eva_stages.core.config.prompts_config import FilePrompts, HubPrompts
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.rewards_config import EnsembleReward, VerifierReward
from eva_stages.core.errors import ConfigError, DataError
from eva_stages.core.named_functions import load_function as import_function
from eva_stages.core.named_functions import resolve_function
from eva_stages.core.stage import load_attribute
from eva_stages.models.choosing import VERIFIERS

PARAMETERS = ("messages", "response", "reference")


def load_function(recipe: Recipe, name: str, place: str) -> Callable[..., Any]:
    """A verifier, or a function in a file that a recipe names at `place`.

    Raises:
        ConfigError: if there is none, the recipe does not allow its code to be imported, it cannot be, or it cannot be called as
            `f(messages, response, reference)`.
    """
    if name in VERIFIERS:
        return load_attribute(VERIFIERS[name])
    found = resolve_function(name, f"{place}.function")
    check_consent(found, recipe, f"{place}.function")
    try:
        function = import_function(str(found.file), found.name, found.digest)
    except DataError as error:
        raise ConfigError([f"{place}.function: {error}"]) from error
    if fault := call_fault(function):
        raise ConfigError([f"{place}.function: {name} {fault}"])
    return function


def call_fault(function: Any) -> str | None:
    """Why something cannot be called as a reward function; None if it can, or Python does not know its parameters."""
    expected = f"expected a function ({', '.join(PARAMETERS)}) that returns a number"
    if isinstance(function, type) or not callable(function):
        return f"is {'a class' if isinstance(function, type) else f'an object of type {type(function).__name__}'}; {expected}"
    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    if any(is_kind(call) for call in (function, function.__call__) for is_kind in kinds):
        return f"is a coroutine or generator function, which returns no number; {expected}"
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # some functions written in C do not say
        return None
    try:
        signature.bind(*PARAMETERS)
    except TypeError as error:
        return f"takes {signature}, and cannot be called with ({', '.join(PARAMETERS)}): {error}; {expected}"
    return None


def check_references(recipe: Recipe) -> None:
    """Every verifier has references to check against, wherever it scores.

    Raises:
        ConfigError: naming the reward and the field that leaves it without references.
    """
    if recipe.evaluation.only:
        return
    rewards = [(recipe.reward, "reward")]
    if isinstance(recipe.reward, EnsembleReward):
        rewards = [(member.reward, f"reward.members.{index}.reward") for index, member in enumerate(recipe.reward.members)]
    given = isinstance(recipe.prompts, FilePrompts | HubPrompts) and recipe.prompts.reference_column is not None
    evolved = recipe.iterations > 0 and recipe.creator.control is None
    faults = []
    for reward, place in rewards:
        if not isinstance(reward, VerifierReward):
            continue
        if reward.function in VERIFIERS and not given:
            faults.append(
                f"{place}.function: {reward.function} checks responses against references, and the prompts have none; set "
                "prompts.reference_column to the column that holds them (prompts.kind=file or hub)"
            )
        if evolved and (reward.function in VERIFIERS or (given and _needs_reference(load_function(recipe, reward.function, place)))):
            own = "" if reward.function in VERIFIERS else ", or give the function's reference a default if it can score without one"
            faults.append(
                f"{place}.function: {reward.function} checks responses against references, and creator.evolve returns prompts without "
                "references, so that every response to an evolved prompt would have no reward; set iterations=0, or creator.control to "
                f"longer, human or no_evolve, or take a reward that needs no references{own}"
            )
    if faults:
        raise ConfigError(faults)


def _needs_reference(function: Callable[..., Any]) -> bool:
    """Whether the third parameter has no default: a function that has one can score without a reference."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError):
        return True
    third = parameters[2:3] or parameters[-1:]
    return not third or third[0].default is inspect.Parameter.empty
