"""Reading studies: a YAML file, or `--vary`, to a `Study` and the recipe of each arm. All errors are reported at once."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from eva_stages.core.config.paths import Location
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.study_config import Study
from eva_stages.core.decoding import decode_yaml
from eva_stages.core.errors import ConfigError
from eva_stages.core.packaged_files import packaged_studies
from eva_stages.core.recipe_errors import error_text, place_of
from eva_stages.core.recipe_files import input_text, is_study, load_recipe, parse_section, recipe_text, unknown_name
from eva_stages.core.written_fields import Override, places_in

EXPECTED_CONTENT = "a study is a mapping with base, question, seeds and arms; see `eva recipes ls` for packaged ones"
STUDIES = "studies"
"""May stand before the name of a packaged study."""
VARY = "as in --vary creator.metric=reward_gap,uniform"


@dataclass(frozen=True)
class LoadedStudy:
    """A study, and the recipe of each of its arms with the recipe's own seed."""

    study: Study
    recipes: Mapping[str, Recipe]

    @property
    def name(self) -> str:
        assert self.study.name is not None
        return self.study.name

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.study.seed_numbers(next(iter(self.recipes.values())).seed)


def find_study(name: str) -> tuple[str, str] | None:
    """The place and the text of a study, from a path or the name of a packaged one; None if the name is not that of a study."""
    path = Path(name)
    if path.is_file():
        text = input_text(path, name)
        return (str(path), text) if is_study(text) else None
    texts = {study.name: study.text for study in packaged_studies()}
    title = name.removeprefix(f"{STUDIES}/")
    return (title, texts[title]) if title in texts else None


def load_study(name: str, changes: Mapping[str, Any], overrides: Sequence[str | Override] = ()) -> LoadedStudy:
    """Read a study and build the recipe of every arm.

    Args:
        name: path, or name of a packaged study.
        changes: values that replace fields of the study, by the option that gives them (`seeds` for --seeds).
        overrides: `a.b=c` assignments for all arms, as for a recipe.

    Raises:
        ConfigError: with every error.
    """
    found_study = find_study(name)
    if found_study is None:
        if Path(name).is_file():
            try:
                decode_yaml(input_text(Path(name), name))
            except ValueError as error:
                raise ConfigError([f"{name}: {error}"]) from error
            raise ConfigError([f"{name} has no arms; {EXPECTED_CONTENT}. For a recipe: --vary field=value,value, {VARY}"])
        names = [study.name for study in packaged_studies()]
        raise ConfigError([f"{unknown_name('study', name, names)}. For a recipe: --vary field=value,value, {VARY}"])
    place, text = found_study
    options = [Override(field, value, f"--{field}") for field, value in changes.items()]
    study = parse_section(Study, place, text, EXPECTED_CONTENT, options)
    if study.name is None:
        stem = Path(place).name.removesuffix(".yaml").removesuffix(".yml")
        study = _checked_study({**study.model_dump(exclude_unset=True), "name": stem}, f"{place}: the name of the file")
    path = Path(name)
    folder = path.parent.absolute() if path.is_file() and "base" not in changes else Path.cwd()
    option_places: dict[Location, str] = {(field,): f"--{field}" for field in changes}
    places = {**places_in(place, text), **option_places}
    return _with_recipes(study, place, places, folder, overrides)


def varied_study(recipe: str, variations: Sequence[str], changes: Mapping[str, Any], overrides: Sequence[str] = ()) -> LoadedStudy:
    """The study of `--vary`: the first arm has the first value of every field; each other arm changes one field to one other value.

    Args:
        variations: `a.b=value,value`.
        changes, overrides: as for `load_study`.
    """
    fields: dict[str, list[Any]] = {}
    faults = []
    for variation in variations:
        path, _, text = variation.partition("=")
        try:
            values, _ = decode_yaml(f"[{text}]")
        except ValueError as error:
            faults.append(f"--vary {variation}: the values are {error}")
            continue
        if not path or len(values) < 2:
            faults.append(f"--vary {variation}: expected a field and at least two values, {VARY}")
        elif path in fields:
            faults.append(f"--vary {variation}: {path} is varied twice; list all values in one --vary")
        fields[path] = values
    if faults:
        raise ConfigError(faults)
    settings = [{path: values[0] for path, values in fields.items()}]
    settings += [{**settings[0], path: value} for path, values in fields.items() for value in values[1:]]
    names = ["-".join(_name_of(value) for value in setting.values()) for setting in settings]
    repeated_names = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if repeated_names:
        raise ConfigError([f"--vary: two arms would be called {name}; write a study with names of your own" for name in repeated_names])
    varied_fields = " and ".join(fields)
    data = {
        "name": "-".join([load_recipe(recipe, overrides).name, *(path.rpartition(".")[2] for path in fields)]),
        "question": f"Does {varied_fields} make a difference?",
        "base": recipe,
        "arms": dict(zip(names, settings, strict=True)),
        **changes,
    }
    return _with_recipes(_checked_study(data, "--vary"), "--vary", {}, Path.cwd(), overrides)


def _name_of(value: Any) -> str:
    """A value as a part of the name of an arm."""
    text = value if isinstance(value, str) else json.dumps(value)
    return re.sub(r"[^A-Za-z0-9.]+", "_", text).strip("_.") or "none"


def _checked_study(data: dict[str, Any], file: str) -> Study:
    try:
        return Study.model_validate(data)
    except ValidationError as error:
        raise ConfigError([error_text(entry, Study, {}, file) for entry in error.errors()]) from error


def _with_recipes(
    study: Study, file: str, places: Mapping[Location, str], folder: Path, overrides: Sequence[str | Override]
) -> LoadedStudy:
    """Build the recipe of every arm; paths in the study are relative to `folder`."""
    base = str(folder / study.base) if (folder / study.base).is_file() else study.base
    try:
        recipe_text(base)
    except ConfigError as error:
        raise ConfigError([f"{place_of(('base',), places, file)}: base: {fault}" for fault in error.faults]) from error
    shared_overrides = [
        *_assignments(study.set, ("set",), "set", file, places, folder),
        *([] if study.most_iterations is None else [Override("iterations", study.most_iterations, f"{file}: budget")]),
    ]
    recipes: dict[str, Recipe] = {}
    faults: list[str] = []
    for arm, changes in study.arms.items():
        own_overrides = _assignments(changes, ("arms", arm), f"arm {arm}", file, places, folder)
        try:
            recipe = load_recipe(base, [*shared_overrides, *overrides, *own_overrides])
        except ConfigError as error:
            faults += error.faults
            continue
        if recipe.evaluation.only:
            faults.append(f"{file}: arm {arm}: evaluation.only is true, so nothing is trained; a study needs a recipe that trains")
        if study.compared_iteration not in (None, recipe.iterations):
            faults.append(
                f"{file}: arm {arm}: iterations is {recipe.iterations}, and the study's budget compares after {study.compared_iteration}; "
                "remove one of them"
            )
        if "seed" in changes:
            faults.append(f"{file}: arm {arm}: sets the seed; the study sets it, and runs every arm with the same seeds")
        recipes[arm] = recipe
    if not isinstance(study.seeds, int) and ("seed" in study.set or any(_sets_seed(override) for override in overrides)):
        faults.append(f"{file}: seed is set for all arms, and seeds is a list of seeds; remove one of them")
    for first, second in combinations(recipes, 2):
        if recipes[first] == recipes[second]:
            faults.append(f"{file}: arms: {first} and {second} are the same recipe; their difference would be 0. Change or remove one")
    if faults:
        raise ConfigError(list(dict.fromkeys(faults)))
    return LoadedStudy(study, recipes)


def _sets_seed(override: str | Override) -> bool:
    return (override.partition("=")[0] if isinstance(override, str) else override.path) == "seed"


def _assignments(
    changes: Mapping[str, Any], location: Location, title: str, file: str, places: Mapping[Location, str], folder: Path
) -> list[Override]:
    return [Override(path, value, f"{place_of((*location, path), places, file)}: {title}", folder) for path, value in changes.items()]
