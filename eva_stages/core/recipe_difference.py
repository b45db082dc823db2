"""Where two recipes differ: `eva recipes diff`."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.redaction import redact_data
from eva_stages.core.text_table import TextTable, count_text


def recipe_difference(names: Sequence[str], recipes: Sequence[Recipe]) -> dict[str, Any]:
    """The fields in which two recipes differ, section by section, with both values, without secrets; one is left
    out where that recipe has no such field.

    Args:
        names: of the two recipes.
    """
    first, second = (dict(_values(recipe.model_dump(mode="json"))) for recipe in recipes)
    sections = list(dict.fromkeys(_section(field) for field in (*first, *second)))
    top_fields = list(Recipe.model_fields)
    fields = dict.fromkeys((*first, *second))
    differences: list[dict[str, Any]] = []
    for field in sorted(fields, key=lambda field: (top_fields.index(field.partition(".")[0]), sections.index(_section(field)))):
        if (field in first) == (field in second) and first.get(field) == second.get(field):
            continue
        if any(other_field.startswith(f"{field}.") for other_field in fields):
            continue  # empty in one recipe and a section in the other, whose fields are listed
        values = {key: recipe_values[field] for key, recipe_values in (("a", first), ("b", second)) if field in recipe_values}
        differences.append({"field": field, **values})
    document: dict[str, Any] = redact_data({"a": names[0], "b": names[1], "differences": differences})
    return document


def _section(field: str) -> str:
    return field.rpartition(".")[0]


def _values(value: Any, field: str = "") -> Iterator[tuple[str, Any]]:
    """Every value with its field, as in `--set`."""
    entries: Any = None
    if isinstance(value, dict) and value:
        entries = value.items()
    elif isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
        entries = enumerate(value)
    if entries is None:
        yield field, value
        return
    for key, entry in entries:
        yield from _values(entry, f"{field}.{key}" if field else str(key))


def difference_table(document: dict[str, Any]) -> TextTable:
    """The differences as a table; `-` where a recipe has no such field."""
    rows = [[entry["field"], *(_text(entry, key) for key in ("a", "b"))] for entry in document["differences"]]
    count = f"{count_text(len(rows), 'field')} {'differs' if len(rows) == 1 else 'differ'}"
    return TextTable(f"A: {document['a']}\nB: {document['b']}\n{count}", ["field", "A", "B"], rows, alignment="Lll")


def _text(entry: dict[str, Any], key: str) -> str:
    if key not in entry:
        return "-"
    value = entry[key]
    return value.removeprefix(f"{Path.cwd()}/") if isinstance(value, str) else json.dumps(value)
