"""Reading recipes: YAML and `--set` to a `Recipe`. All errors are reported at once, each with its place and what to do."""

import copy
import datetime
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from eva_stages.core.config.paths import Location, with_absolute_paths
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.decoding import MAX_CHARACTERS, MAX_DEPTH, SHORTEST, decode_yaml
from eva_stages.core.errors import ConfigError
from eva_stages.core.recipe_errors import closest, dotted_path, error_text, place_of

SectionType = TypeVar("SectionType", bound=BaseModel)
STUDY_FIELDS = frozenset({"arms", "question", "contrasts"})
"""Fields of a study that no recipe has."""


@dataclass(frozen=True)
class RecipeFile:
    """A packaged recipe or study: its name and its text."""

    name: str
    text: str

    @property
    def summary(self) -> str:
        """The first comment line."""
        return self.text.partition("\n")[0].removeprefix("#").strip()


@dataclass(frozen=True)
class Override:
    """An assignment to a field of a recipe."""

    path: str
    """Dotted, as `creator.metric`."""
    value: Any
    place: str
    """Where it was written, for errors."""
    folder: Path | None = None
    """Base of relative paths in the value; None: the current folder."""


def packaged_recipes() -> list[RecipeFile]:
    """Every recipe shipped with eva, sorted by name."""
    return sorted(_walk(resources.files("configs"), ""), key=lambda recipe: recipe.name)


def packaged_studies() -> list[RecipeFile]:
    """Every study shipped with eva, sorted by name."""
    return sorted(_walk(resources.files("configs") / "studies", ""), key=lambda study: study.name)


def _walk(folder: Traversable, prefix: str) -> Iterable[RecipeFile]:
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name not in ("accelerate", "cluster", "studies", "__pycache__"):
            yield from _walk(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".yaml"):
            yield RecipeFile(prefix + entry.name.removesuffix(".yaml"), entry.read_text(encoding="utf-8"))


def recipe_files(recipe: str) -> Path | None:
    """The folder with the files of a packaged recipe; None if it has none, or the recipe is not packaged."""
    folder = Path(str(resources.files("configs"))) / recipe
    return folder if folder.is_dir() and not Path(recipe).is_absolute() else None


def recipe_text(recipe: str) -> tuple[str, str]:
    """The place and text of a recipe, from a path or the name of a packaged recipe.

    Raises:
        ConfigError: if there is none, or it is a study.
    """
    path = Path(recipe)
    texts = {entry.name: entry.text for entry in (*packaged_recipes(), *packaged_studies())}
    if not path.is_file() and recipe not in texts:
        raise ConfigError([unknown_name("recipe", recipe, [entry.name for entry in packaged_recipes()], list(texts))])
    place, text = (str(path), input_text(path, recipe)) if path.is_file() else (recipe, texts[recipe])
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
    return f"there is no {kind} {name!r}: give the path of a file, or a packaged {kind}: {', '.join(known_names)}{proposal}"


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
    path = Path(recipe)
    folder = path.parent if path.is_file() else Path()
    advice = "a recipe is a mapping of fields; see `eva recipes show quickstart`"
    return parse_section(Recipe, *recipe_text(recipe), advice, overrides, folder.absolute())


def run_date(root: Path) -> datetime.date:
    """The day on which the run in a folder began, else today: a rerun on another day samples what the first day sampled."""
    path = root / "recipe.yaml"
    try:
        recorded_date = load_recipe(str(path)).runtime.date if path.is_file() else None
    except ConfigError:  # written by another version of eva; its errors are not this command's business
        recorded_date = None
    return recorded_date or datetime.date.today()


def parse_section(
    kind: type[SectionType], place: str, text: str, advice: str, overrides: Sequence[str | Override] = (), folder: Path | None = None
) -> SectionType:
    """A YAML text as a section of type `kind`.

    Args:
        place: the file, for errors.
        advice: text of the error where the file is not a mapping.
        folder: base of relative paths in the text; None = it has no paths.

    Raises:
        ConfigError: with every error.
    """
    try:
        data, root = decode_yaml(text)
    except ValueError as error:
        raise ConfigError([f"{place}: {error}"]) from error
    if not isinstance(data, dict):
        raise ConfigError([f"{place}: {advice}"])
    places: dict[Location, str] = {}
    faults: list[str] = []
    _note_places(root, (), place, places, faults)
    folders: dict[str, Path] = {}
    for override in overrides:
        try:
            assignment = parse_override(override) if isinstance(override, str) else override
            _assign(data, assignment, places)
        except ValueError as error:
            faults.append(str(error))
        else:
            folders[assignment.place] = assignment.folder or Path.cwd()
    try:
        section = kind.model_validate(data)
    except ValidationError as error:
        faults += [error_text(entry, kind, places, place) for entry in error.errors()]
    if faults:
        raise ConfigError(faults)
    return section if folder is None else _absolute_section(section, folder, folders, places, place)


def _absolute_section(section: SectionType, folder: Path, folders: dict[str, Path], places: dict[Location, str], file: str) -> SectionType:
    """A section with absolute paths; those in overrides are relative to `folders`, by the places of the overrides."""

    def folder_of(location: Location) -> Path:
        return folders.get(place_of(location, places, file), folder)

    absolute_section, faults = with_absolute_paths(section, folder_of)
    if faults:
        raise ConfigError([f"{place_of(location, places, file)}: {dotted_path(location)}: {text}" for location, text in faults])
    return absolute_section


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML; loading it again gives the same recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def places_in(file: str, text: str) -> dict[Location, str]:
    """File and line of every field of a YAML text that can be read."""
    places: dict[Location, str] = {}
    _note_places(decode_yaml(text)[1], (), file, places, [])
    return places


def _note_places(node: yaml.Node | None, location: Location, file: str, places: dict[Location, str], faults: list[str]) -> None:
    if node is None:
        return
    places.setdefault(location, f"{file}:{node.start_mark.line + 1}")
    if isinstance(node, yaml.MappingNode):
        keys = set()
        for key, value in node.value:
            field = (*location, key.value)
            if key.value in keys:
                faults.append(f"{file}:{key.start_mark.line + 1}: {dotted_path(field)} occurs twice; keep one")
            keys.add(key.value)
            places[field] = f"{file}:{key.start_mark.line + 1}"
            _note_places(value, field, file, places, faults)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _note_places(value, (*location, index), file, places, faults)


def parse_override(text: str) -> Override:
    """`a.b=c` of the command line; the value is YAML.

    Raises:
        ValueError: with the place and what is wrong.
    """
    path, equals, value_text = text.partition("=")
    if not equals or not path:
        raise ValueError(f"--set {text}: expected a.b=value, as in --set creator.metric=reward_variance")
    place = f"--set {text[:SHORTEST]}"
    try:
        value, _ = decode_yaml(value_text)
    except ValueError as error:
        raise ValueError(f"{place}: the value is {error}") from error
    return Override(path, value, place)


def _assign(data: Any, override: Override, places: dict[Location, str]) -> None:
    """Raises:
    ValueError: with the place and what is wrong, if the data has no such field.
    """
    parts = override.path.split(".")
    if len(parts) > MAX_DEPTH:
        raise ValueError(f"{override.place}...: names a field {len(parts):,} levels deep; at most {MAX_DEPTH} levels are read")
    keys: list[str | int] = [int(part) if part.isdecimal() and len(part) < 9 else part for part in parts]
    location = tuple(keys)
    target = data
    for depth, key in enumerate(keys):
        fits = isinstance(target, dict) or (isinstance(target, list) and isinstance(key, int) and key < len(target))
        if not fits:
            raise ValueError(f"{override.place}: {dotted_path(location[:depth])} has no entry {key!r}")
        if depth == len(keys) - 1:
            target[key] = copy.deepcopy(override.value)
            for part in [place for place in places if place[: len(location)] == location]:
                del places[part]  # the override replaces the whole section
            places[location] = override.place
        else:
            if isinstance(target, dict) and target.get(key) is None:
                target[key] = {}
                places.setdefault(location[: depth + 1], override.place)
            target = target[key]
