"""The fields of a recipe as they are written: values, the place of each, and changes by `--set` or by a recipe that extends another."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from eva_stages.core.config.paths import Location
from eva_stages.core.decoding import MAX_DEPTH, SHORTEST, decode_yaml
from eva_stages.core.errors import ConfigError
from eva_stages.core.recipe_errors import dotted_path, place_of


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


@dataclass
class WrittenFields:
    """Fields that are not validated yet."""

    data: dict[str, Any]
    file: str
    """For errors at fields without a place."""
    folder: Path
    """Base of relative paths at places that `folders` does not have."""
    places: dict[Location, str] = field(default_factory=dict)
    """File and line, or override, of every field by its location."""
    folders: dict[str, Path] = field(default_factory=dict)
    """Base of relative paths, by place."""
    faults: list[str] = field(default_factory=list)

    def place_of(self, location: Location) -> str:
        return place_of(location, self.places, self.file)

    def folder_of(self, location: Location) -> Path:
        return self.folders.get(self.place_of(location), self.folder)

    def assign(self, override: Override) -> None:
        """Replace a field.

        Raises:
            ValueError: with the place and what is wrong, if there is no such field.
        """
        parts = override.path.split(".")
        if len(parts) > MAX_DEPTH:
            raise ValueError(f"{override.place}...: names a field {len(parts):,} levels deep; at most {MAX_DEPTH} levels are read")
        keys: list[str | int] = [int(part) if part.isdecimal() and len(part) < 9 else part for part in parts]
        location = tuple(keys)
        target: Any = self.data
        for depth, key in enumerate(keys):
            fits = isinstance(target, dict) or (isinstance(target, list) and isinstance(key, int) and key < len(target))
            if not fits:
                raise ValueError(f"{override.place}: {dotted_path(location[:depth])} has no entry {key!r}")
            if depth == len(keys) - 1:
                target[key] = copy.deepcopy(override.value)
                self._forget_places(location)
                self.places[location] = override.place
            else:
                if isinstance(target, dict) and target.get(key) is None:
                    target[key] = {}
                    self.places.setdefault(location[: depth + 1], override.place)
                target = target[key]
        self.folders[override.place] = override.folder or Path.cwd()

    def extend(self, child: "WrittenFields") -> None:
        """Change these fields to those of a recipe that extends this one: mappings are merged, everything else is replaced, and so is a
        mapping whose `kind` changes."""
        for location in list(_merge(self.data, child.data, ())):
            self._forget_places(location)
            self.places[location] = child.place_of(location)  # a mapping from Python has no places of its own
        self.places |= child.places
        self.folders |= child.folders
        self.faults += child.faults
        self.file, self.folder = child.file, child.folder

    def _forget_places(self, location: Location) -> None:
        for place in [place for place in self.places if place[: len(location)] == location]:
            del self.places[place]


def _merge(data: dict[str, Any], changes: dict[str, Any], location: Location) -> Iterator[Location]:
    """Merge mappings, and yield the locations of the values that were replaced."""
    for key, value in changes.items():
        present_value = data.get(key)
        if isinstance(value, dict) and isinstance(present_value, dict) and not _is_other_kind(value, present_value):
            yield from _merge(present_value, value, (*location, key))
        else:
            data[key] = value
            yield (*location, key)


def _is_other_kind(section: dict[str, Any], present_section: dict[str, Any]) -> bool:
    return "kind" in section and "kind" in present_section and section["kind"] != present_section["kind"]


def read_fields(file: str, text: str, folder: Path, advice: str) -> WrittenFields:
    """The fields of a YAML text.

    Args:
        file: for errors.
        folder: base of relative paths.
        advice: text of the error where the text is not a mapping.

    Raises:
        ConfigError: if the text is not YAML, or not a mapping.
    """
    try:
        data, root = decode_yaml(text)
    except ValueError as error:
        raise ConfigError([f"{file}: {error}"]) from error
    if not isinstance(data, dict):
        raise ConfigError([f"{file}: {advice}"])
    fields = WrittenFields(data, file, folder)
    _note_places(root, (), file, fields.places, fields.faults)
    fields.folders = dict.fromkeys(fields.places.values(), folder)
    return fields


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
            key_location = (*location, key.value)
            if key.value in keys:
                faults.append(f"{file}:{key.start_mark.line + 1}: {dotted_path(key_location)} occurs twice; keep one")
            keys.add(key.value)
            places[key_location] = f"{file}:{key.start_mark.line + 1}"
            _note_places(value, key_location, file, places, faults)
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
