"""Errors of a recipe's validation as `place: field: what is wrong; what is allowed`."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from eva_stages.core.config.function_fields import UNKNOWN
from eva_stages.core.config.paths import Location
from eva_stages.core.decoding import SHORTEST, short

KEY = "[key]"
"""What pydantic puts at the end of a location where a key of a mapping is wrong."""


def error_text(entry: Any, kind: type[BaseModel], places: Mapping[Location, str], file: str) -> str:
    """One of pydantic's errors, as text.

    Args:
        places: file and line, or override, of every field by its location; `file` stands for all others.
    """
    location, owner = _plain_location(entry["loc"], kind)
    if entry["type"] == "union_tag_invalid":
        location = (*location, "kind")
    field = dotted_path(tuple(part for part in location if part != KEY))
    value = entry["input"]
    match entry["type"]:
        case "extra_forbidden":
            field_names = sorted([*owner.model_fields, *getattr(owner, "FILE_FIELDS", ())]) if owner else []
            text = f"unknown field; known here: {', '.join(field_names)}{closest(str(location[-1])[:SHORTEST], field_names)}"
        case "missing":
            text = "is required and missing"
        case "literal_error":
            allowed_values = entry["ctx"]["expected"].replace(" or ", ", ").replace("'", "")
            text = f"is {short(value)}; known: {allowed_values}{closest(str(value)[:SHORTEST], allowed_values.split(', '))}"
        case kind_of_error if kind_of_error == UNKNOWN:
            function_names, value = entry["ctx"]["known"], entry["ctx"]["value"]
            function = "a function in a Python file, as in functions.py:name"
            allowed_values = f"known: {', '.join(function_names)}, or {function}" if function_names else f"expected {function}"
            text = f"is {short(value)}; {allowed_values}{closest(value[:SHORTEST], function_names)}"
        case "union_tag_invalid":
            allowed_values = entry["ctx"]["expected_tags"].replace("'", "")
            tag = str(entry["ctx"]["tag"])
            text = f"is {short(tag)}; known: {allowed_values}{closest(tag[:SHORTEST], allowed_values.split(', '))}"
        case "union_tag_not_found":
            text = "needs a `kind`"
        case "model_type" | "model_attributes_type":
            text = f"is {short(value)}; expected a mapping of fields"
        case "tuple_type":
            text = f"is {short(value)}; expected a list, as in [a, b]"
        case "value_error":
            text = str(entry["ctx"]["error"])
        case _:
            message = entry["msg"]
            text = f"is {short(value)}; {message[0].lower()}{message[1:]}"
    return f"{place_of(location, places, file)}: {field}: {text}"


def place_of(location: Location, places: Mapping[Location, str], file: str) -> str:
    while location and location not in places:
        location = location[:-1]
    return places.get(location, file)


def _plain_location(location: Location, owner: type[BaseModel] | None) -> tuple[Location, type[BaseModel] | None]:
    """Drop pydantic's union tags from an error's location; also the model that the last key belongs to."""
    plain: list[str | int] = []
    key_of: type[BaseModel] | None = None
    options: dict[str, type[BaseModel]] = {}
    for index, part in enumerate(location):
        if options and part in options:
            owner, options = options[str(part)], {}
            continue
        plain.append(part)
        if key_of is not None:
            owner, key_of = key_of, None
        elif index < len(location) - 1 and isinstance(part, str):
            field = owner.model_fields.get(part) if owner else None
            models = _models(field.annotation) if field else []
            owner = models[0] if len(models) == 1 else None
            key_of = owner if field and get_origin(field.annotation) is dict else None
            options = {kind: model for model in models for kind in _kinds(model)} if len(models) > 1 else {}
    return tuple(plain), owner


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _kinds(model: type[BaseModel]) -> tuple[str, ...]:
    field = model.model_fields.get("kind")
    return get_args(field.annotation) if field else ()


def dotted_path(location: Location) -> str:
    """A location as in `--set`."""
    return ".".join(str(part)[:SHORTEST] for part in location) or "recipe"


def closest(word: str, known_words: Iterable[str]) -> str:
    """A question after the most similar known word; nothing if there is none."""
    matches = difflib.get_close_matches(word, list(known_words), n=1)
    return f". Did you mean {matches[0]}?" if matches else ""
