"""Fields of a recipe that name files, and absolute paths for them.

Paths in a recipe file are relative to that file; paths in a packaged recipe or on the command line are relative to the current folder. They
become absolute when a recipe is read, so that a run's saved recipe is independent of the current folder.
"""

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel

from eva_stages.core.config.function_fields import FunctionField, in_file

Location = tuple[str | int, ...]
FolderOf = Callable[[Location], Path]
Faults = list[tuple[Location, str]]
Model = TypeVar("Model", bound=BaseModel)


class Names(Enum):
    """Kinds of names."""

    FILE = "a file or folder"
    MAYBE_FILE = "a file or folder if it exists, else another name, for example a Hub id"


FilePath = Annotated[str, Names.FILE]
OptionalFile = Annotated[str | None, Names.FILE]
MaybeFile = Annotated[str, Names.MAYBE_FILE]
OptionalMaybeFile = Annotated[str | None, Names.MAYBE_FILE]
MaybeFiles = Annotated[tuple[str, ...], Names.MAYBE_FILE]


def with_absolute_paths(section: Model, folder_of: FolderOf, location: Location = ()) -> tuple[Model, Faults]:
    """A section with absolute paths, and errors.

    Args:
        folder_of: the base folder of relative paths at a location.

    Returns:
        The section; the location of each path that exists only relative to the current folder, with the path to write instead.
    """
    changes: dict[str, Any] = {}
    faults: Faults = []
    for name, field in type(section).model_fields.items():
        field_location = (*location, name)
        kind = next((mark for mark in field.metadata if isinstance(mark, Names | FunctionField)), None)
        changes[name] = _with_absolute_values(getattr(section, name), kind, folder_of, field_location, faults)
    changed_values = {name: value for name, value in changes.items() if value != getattr(section, name)}
    return (section.model_copy(update=changed_values) if changed_values else section), faults


def _with_absolute_values(value: Any, kind: Names | FunctionField | None, folder_of: FolderOf, location: Location, faults: Faults) -> Any:
    match value:
        case BaseModel():
            changed_section, section_faults = with_absolute_paths(value, folder_of, location)
            faults += section_faults
            return changed_section
        case tuple() | list():
            return type(value)(_with_absolute_values(item, kind, folder_of, (*location, index), faults) for index, item in enumerate(value))
        case dict():
            return {key: _with_absolute_values(item, kind, folder_of, (*location, key), faults) for key, item in value.items()}
        case str() if kind is not None:
            return _absolute(value, kind, folder_of(location), location, faults)
        case _:
            return value


def _absolute(text: str, kind: Names | FunctionField, folder: Path, location: Location, faults: Faults) -> str:
    if isinstance(kind, FunctionField):
        return _function(text, folder) if in_file(text) else text
    path = _joined_path(folder, text)
    if Path(path).exists():
        return path
    other_path = _joined_path(Path.cwd(), text)
    is_path = kind is Names.FILE or "/" in text
    if is_path and other_path != path and Path(other_path).exists():
        faults.append((location, f"there is no {text} in {folder}, the recipe's folder; if you mean {other_path}, write that path"))
    return path if kind is Names.FILE else text


def _function(text: str, folder: Path) -> str:
    """`module:name` or `file.py:name` with the absolute path of the file."""
    module, _, name = text.rpartition(":")
    file = module if module.endswith(".py") else f"{module.replace('.', '/')}.py"
    package = Path(_joined_path(folder, module.replace(".", "/"))) / "__init__.py"
    return f"{package if not module.endswith('.py') and package.is_file() else _joined_path(folder, file)}:{name}"


def _joined_path(folder: Path, text: str) -> str:
    try:
        path = Path(text).expanduser()
    except RuntimeError:  # ~name of an unknown user
        path = Path(text)
    path = (folder / path).absolute()
    if ".." in path.parts:  # the parent of a link's target is not the parent of the link
        path = path.resolve() if path.name == ".." else path.parent.resolve() / path.name
    return str(path)
