"""Reading recipes: YAML and `--set` to a `Recipe`. All errors are reported at once, each with its place and what to do."""

import copy
import datetime
import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from eva_stages.core.config.paths import Location, with_absolute_paths
from eva_stages.core.config.recipe import EXTENDS, Recipe
from eva_stages.core.decoding import MAX_CHARACTERS, decode_yaml, short
from eva_stages.core.errors import ConfigError
from eva_stages.core.packaged_files import packaged_recipes, packaged_studies
from eva_stages.core.recipe_errors import closest, dotted_path, error_text
from eva_stages.core.written_fields import Override, WrittenFields, parse_override, read_fields

SectionType = TypeVar("SectionType", bound=BaseModel)
STUDY_FIELDS = frozenset({"arms", "question", "contrasts"})
"""Fields of a study that no recipe has."""
EXPECTED_CONTENT = "a recipe is a mapping of fields; see `eva recipes show quickstart`"


def recipe_text(recipe: str) -> tuple[str, str]:
    """The place and text of a recipe, from a path or the name of a packaged recipe.

    Raises:
        ConfigError: if there is none, or it is a study.
    """
    path = Path(recipe)
    return _text_of(recipe, path if path.is_file() else None)


def _text_of(recipe: str, path: Path | None) -> tuple[str, str]:
    """The place and text of a recipe in a file, or where there is none, of the packaged recipe with the name `recipe`."""
    texts = {entry.name: entry.text for entry in (*packaged_recipes(), *packaged_studies())}
    if path is None and recipe not in texts:
        raise ConfigError([unknown_name("recipe", recipe, [entry.name for entry in packaged_recipes()], list(texts))])
    place, text = (str(path), input_text(path, str(path))) if path is not None else (recipe, texts[recipe])
    if is_study(text):
        raise ConfigError([f"{place} is a study, not a recipe; run it with `eva ablate {place}`"])
    return place, text


def unknown_name(kind: str, name: str, known_names: Sequence[str], similar_names: Sequence[str] = ()) -> str:
    """The error about a recipe or study that is neither a file nor a packaged one.

    Args:
        similar_names: those of which the most similar one is proposed; none = `known_names`.
    """
    if name.endswith((".yaml", ".yml")):
        return f"there is no file {name}; for the packaged recipes and studies see `eva recipes ls`"
    proposal = closest(name, similar_names or known_names)
    packaged_names = "see `eva recipes ls`" if proposal else ", ".join(known_names)
    return f"there is no {kind} {name!r}: give the path of a file, or a packaged {kind}: {packaged_names}{proposal}"


def is_study(text: str) -> bool:
    """Whether a YAML text is a study, or is meant to be one."""
    try:
        data, _ = decode_yaml(text)
    except ValueError:  # reading it as a study reports the place
        return any(re.search(rf"^{field}\s*:", text, re.MULTILINE) for field in STUDY_FIELDS)
    return isinstance(data, dict) and not STUDY_FIELDS.isdisjoint(data)


def input_text(path: Path, name: str) -> str:
    """The text of a user's YAML file, with or without a byte order mark.

    Raises:
        ConfigError: if it cannot be read, is not UTF-8, or is too large.
    """
    try:
        if path.stat().st_size > 4 * MAX_CHARACTERS:
            raise ConfigError([f"{name} has {path.stat().st_size:,} bytes; at most {4 * MAX_CHARACTERS:,} are read"])
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{name} cannot be read as text in UTF-8: {error}"]) from error


def load_recipe(recipe: str, overrides: Sequence[str | Override] = ()) -> Recipe:
    """Read, override and validate a recipe. Its paths become absolute.

    Args:
        recipe: path, or name of a packaged recipe.
        overrides: `a.b=c` assignments; the value is YAML, and a path in it is relative to the current folder.

    Raises:
        ConfigError: with every error.
    """
    return _recipe_of_fields(recipe_fields(recipe), overrides)


def recipe_of_mapping(data: dict[str, Any], place: str, overrides: Sequence[Override] = ()) -> Recipe:
    """A recipe from a mapping instead of a file; its paths, and a path in `extends`, are relative to the current folder.

    Args:
        place: for errors.
    """
    fields = WrittenFields(copy.deepcopy(data), place, Path.cwd())
    return _recipe_of_fields(_with_parents(fields, Path.cwd(), place), overrides)


def recipe_fields(recipe: str) -> WrittenFields:
    """The fields of a recipe, merged with those of the recipes that it extends.

    Relative paths are relative to the file that has them. A packaged recipe has no such file: its paths are relative to the file that
    extends it, as if they were written there, or to the current folder.

    Args:
        recipe: path, or name of a packaged recipe.

    Raises:
        ConfigError: if one of the recipes cannot be read, or extends itself.
    """
    path = Path(recipe)
    if not path.is_file():
        return _with_parents(read_fields(*_text_of(recipe, None), Path.cwd(), EXPECTED_CONTENT), None, recipe)
    fields = read_fields(*_text_of(recipe, path), path.parent.absolute(), EXPECTED_CONTENT)
    if EXTENDS in fields.data and "name" not in fields.data:  # the name of the recipe that it extends is that of another run
        fields.data["name"] = path.stem
        fields.places["name",] = f"{path}: the name of the file"
    return _with_parents(fields, path.parent, path.resolve())


def _with_parents(fields: WrittenFields, folder: Path | None, source: Path | str) -> WrittenFields:
    """The fields merged with those of the recipes that they extend.

    Args:
        folder: where `extends` finds files; None for packaged recipes, which extend packaged ones only.
        source: identifies the recipe, which must not extend itself.
    """
    chain, sources = [fields], [source]
    while EXTENDS in fields.data:
        place, parent = f"{fields.place_of((EXTENDS,))}: {EXTENDS}", fields.data.pop(EXTENDS)
        if not isinstance(parent, str) or not parent:
            raise ConfigError([f"{place}: is {short(parent)}; expected the name of a packaged recipe, or a path relative to this file"])
        path = None if folder is None else folder / Path(parent).expanduser()
        is_file = path is not None and path.is_file()
        name = str(path) if path is not None and (is_file or parent.endswith((".yaml", ".yml"))) else parent
        path = path if is_file else None
        try:
            file, text = _text_of(name, path)
        except ConfigError as error:
            raise ConfigError([f"{place}: {fault}" for fault in error.faults]) from error
        source = file if path is None else path.resolve()
        if source in sources:
            names = " extends ".join([*(link.file for link in chain), file])
            raise ConfigError([f"{place}: {names}; a recipe cannot extend itself, so remove one of these lines"])
        sources.append(source)
        folder = None if path is None else path.parent
        fields = read_fields(file, text, fields.folder if folder is None else folder.absolute(), EXPECTED_CONTENT)
        chain.append(fields)
    fields = chain.pop()
    while chain:
        fields.extend(chain.pop())
    return fields


def complete_text(recipe: str) -> str:
    """The text of a recipe; of one that extends another, its leading comments and the merged fields.

    Paths from files in other folders are absolute, so that the text means the same in the folder of the recipe.

    Raises:
        ConfigError: as for `recipe_fields`; if files in other folders are merged, also as for `load_recipe`.
    """
    place, text = recipe_text(recipe)
    parent = read_fields(place, text, Path.cwd(), EXPECTED_CONTENT).data.get(EXTENDS)
    if parent is None:
        return text
    comments = "".join(takewhile(lambda line: line.startswith("#"), text.splitlines(keepends=True)))
    fields = recipe_fields(recipe)
    if any(folder != fields.folder for folder in fields.folders.values()):
        fields.data = _with_paths(fields.data, load_recipe(recipe).model_dump(mode="json"), fields, ())
    merged_text = yaml.safe_dump(fields.data, sort_keys=False, allow_unicode=True, width=140, default_flow_style=None)
    return f"{comments}# Merged with {parent}, which it extends.\n{merged_text}"


def _with_paths(value: Any, resolved_value: Any, fields: WrittenFields, location: Location) -> Any:
    """A written value; its texts that were written in another folder are those of the resolved recipe."""
    match value, resolved_value:
        case dict(), dict():
            return {key: _with_paths(entry, resolved_value.get(key), fields, (*location, key)) for key, entry in value.items()}
        case list(), list():
            pairs = zip(value, resolved_value, strict=True)
            return [_with_paths(entry, resolved, fields, (*location, index)) for index, (entry, resolved) in enumerate(pairs)]
        case str(), str() if fields.folder_of(location) != fields.folder:
            return resolved_value
        case _:
            return value


def run_date(root: Path) -> datetime.date:
    """The day on which the run in a folder began, else today: a rerun on another day samples what the first day sampled."""
    path = root / "recipe.yaml"
    try:
        recorded_date = load_recipe(str(path)).runtime.date if path.is_file() else None
    except ConfigError:  # written by another version of eva; its errors are not this command's business
        recorded_date = None
    return recorded_date or datetime.date.today()


def parse_section(kind: type[SectionType], file: str, text: str, advice: str, overrides: Sequence[str | Override] = ()) -> SectionType:
    """A YAML text as a section of type `kind` that names no files.

    Args:
        file: for errors.
        advice: text of the error where the file is not a mapping.

    Raises:
        ConfigError: with every error.
    """
    return _checked_section(kind, read_fields(file, text, Path.cwd(), advice), overrides)


def _checked_section(kind: type[SectionType], fields: WrittenFields, overrides: Sequence[str | Override]) -> SectionType:
    """The fields with overrides, as a section of type `kind`."""
    faults = list(fields.faults)
    for override in overrides:
        try:
            assignment = parse_override(override) if isinstance(override, str) else override
            if assignment.path == EXTENDS:
                raise ValueError(f"{assignment.place}: only the file of a recipe can extend another; write the line `extends: ...` there")
            fields.assign(assignment)
        except ValueError as error:
            faults.append(str(error))
    try:
        section = kind.model_validate(fields.data)
    except ValidationError as error:
        faults += [error_text(entry, kind, fields.places, fields.file) for entry in error.errors()]
    if faults:
        raise ConfigError(faults)
    return section


def _recipe_of_fields(fields: WrittenFields, overrides: Sequence[str | Override]) -> Recipe:
    section, faults = with_absolute_paths(_checked_section(Recipe, fields, overrides), fields.folder_of)
    if faults:
        raise ConfigError([f"{fields.place_of(location)}: {dotted_path(location)}: {text}" for location, text in faults])
    return section


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML; loading it again gives the same recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
