"""Recipes and studies from Python: a path, a name or a mapping, with changes by dotted names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.decoding import short
from eva_stages.core.errors import ConfigError
from eva_stages.core.recipe_files import load_recipe, recipe_of_mapping
from eva_stages.core.study_files import LoadedStudy, load_study
from eva_stages.core.written_fields import Override

MAPPING = "the recipe"
"""Place of a mapping, for errors."""


def recipe_of(recipe: Recipe | str | Path | Mapping[str, Any], changes: Mapping[str, Any], trust: bool) -> Recipe:
    """The recipe with its changes. Paths in a mapping and in changes are relative to the current folder.

    Raises:
        ConfigError: with every error.
    """
    overrides = _overrides(changes, trust)
    if isinstance(recipe, str | Path):
        return load_recipe(str(recipe), overrides)
    if isinstance(recipe, Recipe):
        if not overrides:
            return recipe
        recipe = recipe.model_dump(mode="json")
    if not isinstance(recipe, Mapping):
        raise ConfigError([f"recipe: is {short(recipe)}; give the path of a file, the name of a packaged recipe, or a mapping of fields"])
    return recipe_of_mapping(_plain(recipe), MAPPING, overrides)


def study_of(study: str | Path, changes: Mapping[str, Any], trust: bool, fields: Mapping[str, Any]) -> LoadedStudy:
    """The study with some of its fields replaced, and the changes in all arms.

    Raises:
        ConfigError: with every error.
    """
    return load_study(str(study), {name: _plain(value) for name, value in fields.items()}, _overrides(changes, trust))


def _overrides(changes: Mapping[str, Any], trust: bool) -> list[Override]:
    settings = {**changes, **({"trust_code": True} if trust else {})}
    return [Override(name, _plain(value), f"change {name}") for name, value in settings.items()]


def _plain(value: Any) -> Any:
    """A value as YAML would have it: paths are texts, tuples are lists."""
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value
