"""Reading recipes: YAML and `--set` to a `Recipe`, with every fault at once, each with its place and its fix."""

import difflib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from eva_stages.core.config.paths import Location, with_absolute_paths
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.decoding import MAX_CHARACTERS, MAX_DEPTH, SHORTEST, decode_yaml, short
from eva_stages.core.errors import ConfigError, DamagedError

Parsed = TypeVar("Parsed", bound=BaseModel)
REMOVED = {"trust_remote_code": "eva has ArmoRM's network and runs no code that comes with a model; leave it out"}
"""Fields that recipes no longer have, and why. Those of finished runs may still have them."""


@dataclass(frozen=True)
class RecipeFile:
    """A packaged recipe: its name and its text."""

    name: str
    text: str

    @property
    def summary(self) -> str:
        """The first comment line."""
        return self.text.partition("\n")[0].removeprefix("#").strip()


def packaged_recipes() -> list[RecipeFile]:
    """Every recipe shipped with eva, sorted by name."""
    return sorted(_walk(resources.files("configs"), ""), key=lambda recipe: recipe.name)


def _walk(folder: Traversable, prefix: str) -> Iterable[RecipeFile]:
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name not in ("accelerate", "cluster", "__pycache__"):
            yield from _walk(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".yaml"):
            yield RecipeFile(prefix + entry.name.removesuffix(".yaml"), entry.read_text(encoding="utf-8"))


def recipe_files(recipe: str) -> Path | None:
    """The folder with the files that a packaged recipe names; None if it needs none, or is no packaged one."""
    folder = Path(str(resources.files("configs"))) / recipe
    return folder if folder.is_dir() and not Path(recipe).is_absolute() else None


def recipe_text(recipe: str) -> tuple[str, str]:
    """The place and text of a recipe given as a path or as the name of a packaged one."""
    path = Path(recipe)
    if path.is_file():
        return str(path), input_text(path, recipe)
    packaged = {entry.name: entry.text for entry in packaged_recipes()}
    if recipe in packaged:
        return recipe, packaged[recipe]
    hint = _closest(recipe, packaged)
    raise ConfigError([f"there is no recipe {recipe!r}: no such file, and the packaged ones are {', '.join(packaged)}{hint}"])


def input_text(path: Path, name: str) -> str:
    """The text of a YAML file that a person gives, with or without a byte order mark.

    Raises:
        ConfigError: if it cannot be read, is not UTF-8, or is larger than any such file.
    """
    try:
        if path.stat().st_size > 4 * MAX_CHARACTERS:
            raise ConfigError([f"{name} has {path.stat().st_size:,} bytes; at most {4 * MAX_CHARACTERS:,} are read"])
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{name} cannot be read as text in UTF-8: {error}"]) from error


def load_recipe(recipe: str, overrides: Sequence[str] = (), folder: Path | None = None) -> Recipe:
    """Read, override and validate a recipe. Its paths become absolute.

    Args:
        recipe: path, or name of a packaged recipe.
        overrides: `a.b=c` assignments; the value is YAML, and a path in it starts in the shell's folder.
        folder: where relative paths in the recipe start; None = in its own folder, of a packaged recipe the shell's.

    Raises:
        ConfigError: with every fault found.
    """
    path = Path(recipe)
    start = (path.parent if folder is None else folder) if path.is_file() else Path()
    expected = "a recipe is a mapping of fields; see `eva recipes show quickstart`"
    return parsed(Recipe, *recipe_text(recipe), expected, overrides, start.absolute())


def recipe_of_run(root: Path) -> Recipe:
    """The recipe that a run was last started with, which may have fields that recipes no longer have.

    Raises:
        DamagedError: if its file is not there, or is none that this version of eva reads.
    """
    path = root / "recipe.yaml"
    try:
        # a relative path is of a version that took it from the shell's folder
        return parsed(Recipe, *recipe_text(str(path)), "a recipe is a mapping of fields", removed=REMOVED, folder=Path.cwd())
    except ConfigError as error:
        fix = f"eva run RECIPE --run-dir {root}, with the recipe that the run was made from; it writes the file again"
        raise DamagedError(f"{path} cannot be read as a recipe: {'; '.join(error.faults[:3])}", fix) from error


def _without(data: Any, names: Collection[str]) -> Any:
    """YAML data without the fields of these names."""
    match data:
        case dict():
            return {key: _without(item, names) for key, item in data.items() if key not in names}
        case list():
            return [_without(item, names) for item in data]
        case _:
            return data


def parsed(
    kind: type[Parsed],
    place: str,
    text: str,
    expected: str,
    overrides: Sequence[str] = (),
    folder: Path | None = None,
    removed: Collection[str] = (),
) -> Parsed:
    """A YAML text as a section of type `kind`.

    Args:
        place: the file, for errors.
        expected: what is said to somebody whose file is no mapping.
        folder: where relative paths in the text start; None = it has none.
        removed: fields that are left out wherever they stand.

    Raises:
        ConfigError: with every fault found.
    """
    try:
        data, root = decode_yaml(text)
    except ValueError as error:
        raise ConfigError([f"{place}: {error}"]) from error
    if not isinstance(data, dict):
        raise ConfigError([f"{place}: {expected}"])
    places: dict[Location, str] = {}
    faults: list[str] = []
    _note_places(root, (), place, places, faults)
    for override in overrides:
        _override(data, override, places, faults)
    try:
        made = kind.model_validate(_without(data, removed))
    except ValidationError as error:
        faults += [_explain(entry, kind, places, place) for entry in error.errors()]
    if faults:
        raise ConfigError(faults)
    return made if folder is None else _placed(made, folder, places, place)


def _placed(made: Parsed, folder: Path, places: dict[Location, str], file: str) -> Parsed:
    """A section with absolute paths; those of overrides start in the shell's folder."""

    def folder_of(location: Location) -> Path:
        return Path.cwd() if _place(location, places, file).startswith("--set ") else folder

    placed, faults = with_absolute_paths(made, folder_of)
    if faults:
        raise ConfigError([f"{_place(location, places, file)}: {_dotted(location)}: {text}" for location, text in faults])
    return placed


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML; loading it again gives the same recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _note_places(node: yaml.Node | None, location: Location, file: str, places: dict[Location, str], faults: list[str]) -> None:
    if node is None:
        return
    places.setdefault(location, f"{file}:{node.start_mark.line + 1}")
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            here = (*location, key.value)
            if key.value in seen:
                faults.append(f"{file}:{key.start_mark.line + 1}: {_dotted(here)} is given twice; keep one")
            seen.add(key.value)
            places[here] = f"{file}:{key.start_mark.line + 1}"
            _note_places(value, here, file, places, faults)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _note_places(value, (*location, index), file, places, faults)


def _override(data: Any, override: str, places: dict[Location, str], faults: list[str]) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        faults.append(f"--set {override}: expected a.b=value, as in --set creator.metric=reward_variance")
        return
    parts = path.split(".")
    if len(parts) > MAX_DEPTH:
        faults.append(f"--set {override[:SHORTEST]}...: names a field {len(parts):,} levels deep; at most {MAX_DEPTH} levels are read")
        return
    try:
        value, _ = decode_yaml(text)
    except ValueError as error:
        faults.append(f"--set {override[:SHORTEST]}: the value is {error}")
        return
    keys: list[str | int] = [int(part) if part.isdecimal() and len(part) < 9 else part for part in parts]
    override = override[:SHORTEST]
    target = data
    for depth, key in enumerate(keys):
        is_last = depth == len(keys) - 1
        fits = isinstance(target, dict) or (isinstance(target, list) and isinstance(key, int) and key < len(target))
        if not fits:
            faults.append(f"--set {override}: {_dotted(tuple(keys[:depth]))} has no entry {key!r}")
            return
        if is_last:
            target[key] = value
            places[tuple(keys)] = f"--set {override}"
        else:
            if isinstance(target, dict) and target.get(key) is None:
                target[key] = {}
            target = target[key]


def _explain(entry: Any, kind: type[BaseModel], places: dict[Location, str], file: str) -> str:
    """One validation error as `place: field: what is wrong; what would be right`."""
    location, owner = _plain_location(entry["loc"], kind)
    if entry["type"] == "union_tag_invalid":
        location = (*location, "kind")
    field = _dotted(location)
    value = entry["input"]
    match entry["type"]:
        case "extra_forbidden" if location[-1] in REMOVED:
            text = f"is no longer a field: {REMOVED[str(location[-1])]}"
        case "extra_forbidden":
            known = sorted(owner.model_fields) if owner else []
            text = f"unknown field; known here: {', '.join(known)}{_closest(str(location[-1])[:SHORTEST], known)}"
        case "missing":
            text = "is required and missing"
        case "literal_error":
            allowed = entry["ctx"]["expected"].replace(" or ", ", ").replace("'", "")
            text = f"is {short(value)}; known: {allowed}{_closest(str(value)[:SHORTEST], allowed.split(', '))}"
        case "unknown_function":
            known, value = entry["ctx"]["known"], entry["ctx"]["value"]
            own = "a function in a Python file, as in functions.py:name"
            allowed = f"known: {', '.join(known)}, or {own}" if known else f"expected {own}"
            text = f"is {short(value)}; {allowed}{_closest(value[:SHORTEST], known)}"
        case "union_tag_invalid":
            allowed = entry["ctx"]["expected_tags"].replace("'", "")
            tag = str(entry["ctx"]["tag"])
            text = f"is {short(tag)}; known: {allowed}{_closest(tag[:SHORTEST], allowed.split(', '))}"
        case "union_tag_not_found":
            text = "needs a `kind`"
        case "model_type" | "model_attributes_type":
            text = f"is {short(value)}; expected a mapping of fields"
        case "value_error":
            text = str(entry["ctx"]["error"])
        case _:
            message = entry["msg"]
            text = f"is {short(value)}; {message[0].lower()}{message[1:]}"
    return f"{_place(location, places, file)}: {field}: {text}"


def _place(location: Location, places: dict[Location, str], file: str) -> str:
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


def _dotted(location: Location) -> str:
    return ".".join(str(part)[:SHORTEST] for part in location) or "recipe"


def _closest(word: str, known: Iterable[str]) -> str:
    matches = difflib.get_close_matches(word, list(known), n=1)
    return f". Did you mean {matches[0]}?" if matches else ""
