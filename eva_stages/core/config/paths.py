"""Which fields of a recipe name files, and where a relative path in one starts.

Paths in a recipe file are relative to that file, and those of a packaged recipe or of the command line to the shell's folder. They are made
absolute when a recipe is read, so that a run's own recipe means the same from everywhere.
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
    """What the text of a field names."""

    FILE = "a file or folder"
    MAYBE_FILE = "a file or folder where there is one of that name, else something else, such as a Hub id"


FilePath = Annotated[str, Names.FILE]
OptionalFile = Annotated[str | None, Names.FILE]
MaybeFile = Annotated[str, Names.MAYBE_FILE]
OptionalMaybeFile = Annotated[str | None, Names.MAYBE_FILE]
MaybeFiles = Annotated[tuple[str, ...], Names.MAYBE_FILE]


def with_absolute_paths(section: Model, folder_of: FolderOf, location: Location = ()) -> tuple[Model, Faults]:
    """A section with its paths made absolute, and the faults found.

    Args:
        folder_of: the folder in which relative paths at a place start.

    Returns:
        The section; the place of each path that does not exist there, but does in the shell's folder, and what to write instead.
    """
    changes: dict[str, Any] = {}
    faults: Faults = []
    for name, field in type(section).model_fields.items():
        here = (*location, name)
        kind = next((mark for mark in field.metadata if isinstance(mark, Names | FunctionField)), None)
        changes[name] = _changed(getattr(section, name), kind, folder_of, here, faults)
    changed = {name: value for name, value in changes.items() if value != getattr(section, name)}
    return (section.model_copy(update=changed) if changed else section), faults


def _changed(value: Any, kind: Names | FunctionField | None, folder_of: FolderOf, here: Location, faults: Faults) -> Any:
    match value:
        case BaseModel():
            changed, found = with_absolute_paths(value, folder_of, here)
            faults += found
            return changed
        case tuple() | list():
            return type(value)(_changed(item, kind, folder_of, (*here, index), faults) for index, item in enumerate(value))
        case dict():
            return {key: _changed(item, kind, folder_of, (*here, key), faults) for key, item in value.items()}
        case str() if kind is not None:
            return _absolute(value, kind, folder_of(here), here, faults)
        case _:
            return value


def _absolute(text: str, kind: Names | FunctionField, folder: Path, here: Location, faults: Faults) -> str:
    if isinstance(kind, FunctionField):
        return _function(text, folder) if in_file(text) else text
    path = _joined(folder, text)
    if Path(path).exists():
        return path
    other = _joined(Path.cwd(), text)
    is_path = kind is Names.FILE or "/" in text
    if is_path and other != path and Path(other).exists():
        faults.append((here, f"there is no {text} in {folder}, where paths in the recipe start; if you mean {other}, write that"))
    return path if kind is Names.FILE else text


def _function(text: str, folder: Path) -> str:
    """`module:name` or `file.py:name` with the absolute path of the file."""
    module, _, name = text.rpartition(":")
    file = module if module.endswith(".py") else f"{module.replace('.', '/')}.py"
    package = Path(_joined(folder, module.replace(".", "/"))) / "__init__.py"
    return f"{package if not module.endswith('.py') and package.is_file() else _joined(folder, file)}:{name}"


def _joined(folder: Path, text: str) -> str:
    try:
        path = Path(text).expanduser()
    except RuntimeError:  # ~name of nobody here
        path = Path(text)
    path = (folder / path).absolute()
    if ".." in path.parts:  # the folder above a link is not the one that its name stands in
        path = path.resolve() if path.name == ".." else path.parent.resolve() / path.name
    return str(path)
