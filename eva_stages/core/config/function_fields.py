"""Recipe fields that name a function: a built-in function by name, or a function in a Python file of the user.

This file declares each such field once: the built-in functions, the parameters, and the function's check. `paths` makes names of files
absolute; `core.named_functions` reads and imports the files.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

UNKNOWN = "unknown_function"
"""Type of the validation error for a text that is neither a known name nor FILE.py:NAME."""
_SPEC = re.compile(r".+:[^\W\d]\w*")
FUNCTION_PATTERN = f"^{_SPEC.pattern}$"
"""Of a function in a file, in JSON schemas."""


@dataclass(frozen=True)
class FunctionField:
    """The functions that a field accepts.

    Attributes:
        functions: built-in functions as "module:attr", by their names in a recipe.
        parameters: names of the positional arguments.
        returns: the return value, in words.
        check: "module:attr" of `f(function, recipe)`, which calls the function with a sample and raises DataError if it fails.
    """

    functions: Mapping[str, str]
    parameters: tuple[str, ...]
    returns: str
    check: str
    reserved: tuple[str, ...] = ()
    """More names that a function in a file may not have."""
    words: tuple[str, ...] = ()
    """More values of the field, which name no function."""
    on_request: tuple[str, ...] = ()
    """Built-in functions that are called only where a recipe names them; a function in a file may have their names."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the built-in functions."""
        return tuple(self.functions)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._validate, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The known names, or a function in a file, for editors."""
        known_names = [{"enum": [*self.words, *self.names]}] if self.words or self.functions else []
        choices = {"anyOf": [*known_names, {"type": "string", "pattern": FUNCTION_PATTERN}]}
        return _with_choices(handler(schema), choices)

    def _validate(self, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        reserved_names = {*self.functions, *self.reserved}.difference(self.on_request)
        for text in (value,) if isinstance(value, str) else value or ():
            if text not in (*self.functions, *self.words) and not _SPEC.fullmatch(text):
                raise PydanticCustomError(UNKNOWN, "no such function", {"known": (*self.words, *self.names), "value": text})
            if in_file(text) and (name := function_name(text)) in reserved_names:
                raise PydanticCustomError("reserved_name", "the name {name} is reserved; rename the function", {"name": name})
        return value


def _with_choices(schema: Any, choices: dict[str, Any]) -> Any:
    """A JSON schema with `choices` in place of every text."""
    match schema:
        case {"type": "string"}:
            return {**{key: value for key, value in schema.items() if key != "type"}, **choices}
        case dict():
            return {key: _with_choices(value, choices) for key, value in schema.items()}
        case list():
            return [_with_choices(entry, choices) for entry in schema]
        case _:
            return schema


def in_file(choice: str) -> bool:
    """Whether a field's text names a function in a file."""
    return ":" in choice


def function_name(choice: str) -> str:
    """The name of a function without its file."""
    return choice.rpartition(":")[2]


class FunctionChoice(NamedTuple):
    """The choice of a function in a recipe."""

    place: str
    choice: str
    field: FunctionField


def function_choices(section: BaseModel, place: str = "") -> Iterator[FunctionChoice]:
    """Every function that a section of a recipe names."""
    for name, info in type(section).model_fields.items():
        mark = next((mark for mark in info.metadata if isinstance(mark, FunctionField)), None)
        yield from _choices(getattr(section, name), mark, f"{place}.{name}" if place else name)


def _choices(value: Any, mark: FunctionField | None, place: str) -> Iterator[FunctionChoice]:
    match value:
        case BaseModel():
            yield from function_choices(value, place)
        case tuple():
            for index, item in enumerate(value):
                yield from _choices(item, mark, f"{place}.{index}")
        case str() if mark is not None:
            yield FunctionChoice(place, value, mark)


def _functions(module: str, *names: str, suffix: str = "") -> dict[str, str]:
    return {name: f"{module}:{name}{suffix}" for name in names}


METRIC = FunctionField(
    _functions(
        "eva_stages.creator.informativeness",
        "reward_gap",
        "reward_max_minus_mean",
        "reward_best_minus_second",
        "reward_variance",
        "reward_mean",
        "reward_mean_inverse",
        "reward_gap_inverse",
        "uniform",
        "spread_at_median",
    )
    | _functions("eva_stages.creator.learnability", "learnability"),
    ("rewards",),
    "one finite number per prompt, from rewards of shape (prompts, n)",
    "eva_stages.creator.function_calls:check_metric",
    reserved=("prompt_id", "weight"),
    on_request=("learnability", "spread_at_median"),
)
CELL = FunctionField(
    _functions("eva_stages.creator.cells", "lettercraft", "reasoning_gym"),
    ("messages", "reference"),
    "the name of the prompt's cell, a text",
    "eva_stages.creator.function_calls:check_cell",
    words=("topic_complexity",),
)
SELECTION = FunctionField(
    _functions("eva_stages.creator.selection", "weighted", "greedy", "stratified", suffix="_selection"),
    ("weights", "draws", "size"),
    "`size` different indices into `weights`",
    "eva_stages.creator.function_calls:check_selection",
)
EVOLVE_METHOD = FunctionField(
    {
        **_functions("eva_stages.creator.evolve_methods", "evol_instruct", "evol_complexity", "evol_quality", "self_instruct", "verbatim"),
        "turn_knob": "eva_stages.creator.knobs:turn_knob",
    },
    ("text", "rng"),
    "two texts: the name of the mutation and the meta-prompt",
    "eva_stages.creator.function_calls:check_method",
)
EVOLVER = FunctionField(
    {},
    ("text", "reference", "rng"),
    "the new prompt, its reference or None, and the name of the mutation, or None where it cannot evolve the prompt",
    "eva_stages.creator.function_calls:check_evolver",
)
FILTER = FunctionField({}, ("text",), "the reason why a prompt is left out, or None", "eva_stages.creator.function_calls:check_filter")
VALIDITY = FunctionField(
    _functions("eva_stages.creator.validity", "lettercraft", "reasoning_gym"),
    ("messages", "reference"),
    "True or False, or None where that cannot be said",
    "eva_stages.creator.validity:check_validity",
    words=("judge",),
)
LOSS = FunctionField(
    {},
    ("pairs",),
    "the loss of each pair, shape (pairs,), and a dict of metrics to log",
    "eva_stages.solver.loss_calls:check_loss",
)
VERIFIER = FunctionField(
    {
        "math": "eva_stages.models.verifiers:math",
        "instruction": "eva_stages.models.instructions:instruction",
        "reasoning_gym": "eva_stages.models.task_families:reasoning_gym",
        "lettercraft": "eva_stages.models.lettercraft_rewards:lettercraft",
    },
    ("messages", "response", "reference"),
    "a number, or None",
    "eva_stages.models.verifier_checks:check_verifier",
)
SCORER = FunctionField(
    VERIFIER.functions, VERIFIER.parameters, "a number from 0 to 1, or None", "eva_stages.models.verifier_checks:check_scorer"
)

Metric = Annotated[str, METRIC]
Cell = Annotated[str, CELL]
SelectionKind = Annotated[str, SELECTION]
EvolveMethod = Annotated[str, EVOLVE_METHOD]
EvolverFunction = Annotated[str, EVOLVER]
Filters = Annotated[tuple[str, ...], FILTER]
Validity = Annotated[str, VALIDITY]
OptionalValidity = Annotated[str | None, VALIDITY]
LossFunction = Annotated[str, LOSS]
Verifier = Annotated[str, VERIFIER]
Scorer = Annotated[str, SCORER]
