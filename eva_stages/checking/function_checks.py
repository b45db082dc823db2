"""Checks of the functions that a recipe names: permission to import, parameters, return values."""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from typing import Any

from eva_stages.core.config.function_fields import FunctionChoice, FunctionField, function_choices
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.errors import ConfigError, DataError
from eva_stages.core.named_functions import load_function
from eva_stages.core.resolved import Resolved
from eva_stages.core.stage import load_attribute


def check_functions(recipe: Recipe, resolved: Resolved) -> Iterator[str]:
    """Every function in a file may be imported, can be called with a sample, and returns what its field uses."""
    for choice in function_choices(recipe):
        try:
            if choice.choice in resolved.functions:
                function = imported_function(recipe, resolved, choice)
                with redirect_stdout(sys.stderr):  # stdout is for the command's own output
                    load_attribute(choice.field.check)(function, recipe)
        except ConfigError as error:
            yield from error.faults
        except DataError as error:
            yield f"{choice.place}: {choice.choice}: {error}"


def imported_function(recipe: Recipe, resolved: Resolved, choice: FunctionChoice) -> Callable[..., Any]:
    """The function in a file that a recipe names at a place.

    Raises:
        ConfigError: if the recipe does not allow its code to be imported, or it cannot be imported or called.
    """
    place, spec, field = choice
    function = resolved.functions[spec]
    if not recipe.trust_code:
        raise ConfigError(
            [
                f"{place}: {function.name} is code in {function.file}, which runs when it is imported. Read the file, then pass "
                "--trust (trust=True in Python) or set trust_code: true in the recipe"
            ]
        )
    try:
        with redirect_stdout(sys.stderr):
            function_object = load_function(str(function.file), function.name, function.digest)
    except DataError as error:
        raise ConfigError([f"{place}: {error}"]) from error
    if fault := call_fault(function_object, field):
        raise ConfigError([f"{place}: {spec} {fault}"])
    return function_object


def call_fault(function: Any, field: FunctionField) -> str | None:
    """Why something cannot be called as a field's function; None if it can, or Python does not know its parameters."""
    expected_function = f"expected a function ({', '.join(field.parameters)}) that returns {field.returns}"
    if isinstance(function, type) or not callable(function):
        return f"is {'a class' if isinstance(function, type) else f'an object of type {type(function).__name__}'}; {expected_function}"
    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    if any(is_kind(call) for call in (function, function.__call__) for is_kind in kinds):
        return f"is a coroutine or generator function, not a plain function; {expected_function}"
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # some functions written in C have no signature
        return None
    try:
        signature.bind(*field.parameters)
    except TypeError as error:
        return f"takes {signature}, and cannot be called with ({', '.join(field.parameters)}): {error}; {expected_function}"
    return None
