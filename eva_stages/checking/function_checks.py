"""Functions that a recipe names: that they may be imported, can be called and return what they should; references for verifiers."""

import inspect
from collections.abc import Callable
from typing import Any

from eva_stages.core.config.function_fields import VERIFIER, FunctionChoice, FunctionField, function_choices, in_file
from eva_stages.core.config.prompts_config import FilePrompts, HubPrompts
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.rewards_config import EnsembleReward, VerifierReward
from eva_stages.core.errors import ConfigError, DataError
from eva_stages.core.named_functions import load_function, resolve_function
from eva_stages.core.stage import load_attribute


def check_functions(recipe: Recipe) -> None:
    """Call every function in a file with a sample.

    Raises:
        ConfigError: with every function that is not there, that the recipe does not allow to be imported, that cannot be imported or
            called, or that returns what its field has no use for.
    """
    faults: list[str] = []
    for choice in function_choices(recipe):
        try:
            if in_file(choice.choice):
                function = imported_function(recipe, choice)
                load_attribute(choice.field.check)(function, recipe)
        except ConfigError as error:
            faults += error.faults
        except DataError as error:
            faults.append(f"{choice.place}: {choice.choice}: {error}")
    if faults:
        raise ConfigError(faults)


def imported_function(recipe: Recipe, choice: FunctionChoice) -> Callable[..., Any]:
    """The function that a recipe names at a place.

    Raises:
        ConfigError: if there is none, the recipe does not allow its code to be imported, it cannot be, or it cannot be called.
    """
    place, spec, field = choice
    if not in_file(spec):
        return load_attribute(field.functions[spec])
    function = resolve_function(spec, place)
    if not recipe.trust_code:
        raise ConfigError(
            [
                f"{place}: {function.name} is code in {function.file}, which may do anything once it is imported; read it, then give "
                "--trust, or set trust_code: true in the recipe"
            ]
        )
    try:
        imported = load_function(str(function.file), function.name, function.digest)
    except DataError as error:
        raise ConfigError([f"{place}: {error}"]) from error
    if fault := call_fault(imported, field):
        raise ConfigError([f"{place}: {spec} {fault}"])
    return imported


def call_fault(function: Any, field: FunctionField) -> str | None:
    """Why something cannot be called as a field's function; None if it can, or Python does not know its parameters."""
    expected = f"expected a function ({', '.join(field.parameters)}) that returns {field.returns}"
    if isinstance(function, type) or not callable(function):
        return f"is {'a class' if isinstance(function, type) else f'an object of type {type(function).__name__}'}; {expected}"
    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    if any(is_kind(call) for call in (function, function.__call__) for is_kind in kinds):
        return f"is a coroutine or generator function, not a plain function; {expected}"
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # some functions written in C do not say
        return None
    try:
        signature.bind(*field.parameters)
    except TypeError as error:
        return f"takes {signature}, and cannot be called with ({', '.join(field.parameters)}): {error}; {expected}"
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
        builtin = not in_file(reward.function)
        if builtin and not given:
            faults.append(
                f"{place}.function: {reward.function} checks responses against references, and the prompts have none; set "
                "prompts.reference_column to the column that holds them (prompts.kind=file or hub)"
            )
        choice = FunctionChoice(f"{place}.function", reward.function, VERIFIER)
        if evolved and (builtin or (given and _needs_reference(imported_function(recipe, choice)))):
            own = "" if builtin else ", or give the function's reference a default if it can score without one"
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
