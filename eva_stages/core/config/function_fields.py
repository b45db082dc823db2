"""Fields that name a function: one of eva's own, or one in a Python file of the user's.

Each field declares here, once, which of eva's functions it takes and where they are, how a function is called, and what checks it. Names of
files are made absolute by `paths`; `core.named_functions` reads and imports the functions.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

UNKNOWN = "unknown_function"
"""Type of the error for a text that is neither a known name nor a function in a file."""
_SPEC = re.compile(r"[^:]+:[^\W\d]\w*")


@dataclass(frozen=True)
class FunctionField:
    """What the functions of a field are like.

    Attributes:
        functions: eva's own functions as "module:attr", by their names in a recipe.
        parameters: names of the positional arguments that a function is called with.
        returns: what it must return, in words.
        check: "module:attr" of `f(function, recipe)`, which calls the function with a sample and raises DataError unless it returns that.
    """

    functions: Mapping[str, str]
    parameters: tuple[str, ...]
    returns: str
    check: str
    reserved: tuple[str, ...] = ()
    """Names that a function in a file may not have, besides those of eva's own."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of eva's own functions."""
        return tuple(self.functions)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def _checked(self, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for text in (value,) if isinstance(value, str) else value:
            if text not in self.functions and not _SPEC.fullmatch(text):
                raise PydanticCustomError(UNKNOWN, "no such function", {"known": self.names, "value": text})
            if in_file(text) and (name := function_name(text)) in (*self.functions, *self.reserved):
                raise PydanticCustomError("reserved_name", "the name {name} is eva's own; rename the function", {"name": name})
        return value


def in_file(choice: str) -> bool:
    """Whether a field's text names a function in a file, not one of eva's own."""
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
    """Every function that a section of a recipe names, eva's own included."""
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
    ),
    ("rewards",),
    "one finite number per prompt, from rewards of shape (prompts, n)",
    "eva_stages.creator.informativeness:check_metric",
    reserved=("prompt_id", "weight"),
)
SELECTION = FunctionField(
    _functions("eva_stages.creator.selection", "weighted", "greedy", "stratified", suffix="_selection"),
    ("weights", "draws", "size"),
    "`size` different indices into `weights`",
    "eva_stages.creator.selection:check_selection",
)
EVOLVE_METHOD = FunctionField(
    _functions("eva_stages.creator.evolving", "evol_instruct", "evol_complexity", "evol_quality", "self_instruct"),
    ("text", "rng"),
    "two texts: the name of the mutation and the meta-prompt",
    "eva_stages.creator.evolving:check_method",
)
FILTER = FunctionField({}, ("text",), "the reason why a prompt is left out, or None", "eva_stages.creator.curation:check_filter")
LOSS = FunctionField(
    {},
    ("pairs",),
    "the loss of each pair, shape (pairs,), and a dict of metrics to log",
    "eva_stages.solver.losses:check_loss",
)
VERIFIER = FunctionField(
    {"math": "eva_stages.models.verifiers:math", "instruction": "eva_stages.models.instructions:instruction"},
    ("messages", "response", "reference"),
    "a number, or None",
    "eva_stages.models.rewards:check_verifier",
)
SCORER = FunctionField(VERIFIER.functions, VERIFIER.parameters, "a number from 0 to 1, or None", "eva_stages.models.rewards:check_scorer")

Metric = Annotated[str, METRIC]
SelectionKind = Annotated[str, SELECTION]
EvolveMethod = Annotated[str, EVOLVE_METHOD]
Filters = Annotated[tuple[str, ...], FILTER]
LossFunction = Annotated[str, LOSS]
Verifier = Annotated[str, VERIFIER]
Scorer = Annotated[str, SCORER]
