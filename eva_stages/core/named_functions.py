"""Functions that a recipe names, in a Python file beside it, known by the content of that file and of its local imports.

`resolve_function` reads the source and runs nothing of it. `load_function` imports it, which may do anything and therefore needs the
recipe's `trust_code`; it refuses a file that has changed since it was resolved. A file's folder (of a package: the one above it) can be
imported from while it is loaded. What a function reads or imports in another way is not part of its identity.
"""

import ast
import hashlib
import importlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from eva_stages.core.config.function_fields import FunctionField
from eva_stages.core.errors import ConfigError, DataError
from eva_stages.core.fingerprint import fingerprint
from eva_stages.core.stage import Use, load_attribute

Function = Callable[..., Any]
SOURCES = "functions"
"""Folder of a run with the sources of every function that its recipes named, each in a folder named after its digest."""
EVA = ("cli", "configs", "eva_stages", "hub_cards", "pipelines")


@dataclass(frozen=True)
class NamedFunction:
    """A function in a file."""

    file: Path
    name: str
    sources: dict[str, bytes]
    """The content of the file, under its path below the folder that is imported from, and of every local module that it imports."""

    @property
    def digest(self) -> str:
        """sha256 over the contents; the file's own name is not part of it."""
        own = self.file.relative_to(import_folder(self.file)).as_posix()
        hashes = {path: hashlib.sha256(content).hexdigest() for path, content in self.sources.items() if path != own}
        return fingerprint({"file": hashlib.sha256(self.sources[own]).hexdigest(), "imports": hashes})

    def save_sources(self, root: Path) -> None:
        """Copy the sources into a run's folder, for whoever reads the run."""
        for name, content in self.sources.items():
            path = root / SOURCES / self.digest / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def use(self) -> Use:
        """What a step gets: the file's place is no part of its identity."""
        return Use(f"{__name__}:FunctionCode", {"name": self.name, "digest": self.digest}, {"file": str(self.file)})


class FunctionCode(BaseModel):
    """A function in a file as data, for the process that calls it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    digest: str
    file: str

    @property
    def spec(self) -> str:
        """As a recipe names it."""
        return f"{self.file}:{self.name}"

    def load(self) -> Function:
        """As `load_function`."""
        return load_function(self.file, self.name, self.digest)


def choice_name(choice: str | FunctionCode) -> str:
    """The name of the function that a step was given."""
    return choice if isinstance(choice, str) else choice.name


def load_choice(choice: str | FunctionCode, field: FunctionField) -> Function:
    """The function that a step was given: one of eva's own by its name, or one in a file.

    Raises:
        DataError: as `load_function` says.
    """
    return load_attribute(field.functions[choice]) if isinstance(choice, str) else choice.load()


def known_functions(field: FunctionField) -> dict[str, Function]:
    """Eva's own functions of a field by their names."""
    return {name: load_choice(name, field) for name in field.names}


def import_folder(file: Path) -> Path:
    """The folder that a file's module is imported from: its own, or the one above its package."""
    folder = file.parent
    while (folder / "__init__.py").is_file() and folder != folder.parent:
        folder = folder.parent
    return folder


def resolve_function(spec: str, place: str) -> NamedFunction:
    """Find "FILE.py:NAME" with the absolute path of a file, and read its source.

    Args:
        place: the recipe field it stands in, for errors.

    Raises:
        ConfigError: if there is no such file, it is no Python, or it does not define the name.
    """
    path, _, name = spec.rpartition(":")
    file = Path(path)
    if not file.is_file():
        raise ConfigError(
            [f"{place}: there is no file {file}; functions come from Python files beside the recipe, as in functions.py:{name}"]
        )
    try:
        sources = _sources(file)
        tree = ast.parse(sources[file.relative_to(import_folder(file)).as_posix()])
    except (SyntaxError, ValueError, RecursionError, OSError) as error:
        raise ConfigError([f"{place}: {file} cannot be read as Python: {error}"]) from error
    if name not in (names := list(_defined(tree))) and "*" not in names:
        raise ConfigError([f"{place}: {file} defines no {name!r}; it defines {', '.join(names) or 'nothing'}"])
    return NamedFunction(file, name, sources)


def _defined(tree: ast.Module) -> Iterator[str]:
    """What a module defines; `*` stands for what it imports by it."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Assign(targets=targets):
                yield from (name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.ImportFrom(names=names):
                yield from (alias.asname or alias.name for alias in names)


def _sources(file: Path) -> dict[str, bytes]:
    """The content of a file and of the local modules that it imports, and they in turn, by path below the import folder."""
    folder = import_folder(file)
    found: dict[str, bytes] = {}
    waiting = [file, *_module_files(folder, file.relative_to(folder).with_suffix("").parts)]
    while waiting:
        path = waiting.pop()
        key = path.relative_to(folder).as_posix()
        if key not in found:
            found[key] = path.read_bytes()
            waiting += _local_imports(ast.parse(found[key]), path, folder)
    return dict(sorted(found.items()))


def _local_imports(tree: ast.Module, file: Path, folder: Path) -> Iterator[Path]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _module_files(folder, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            start = folder if not node.level else file.parents[node.level - 1]
            parts = node.module.split(".") if node.module else []
            yield from _module_files(start, parts)
            for alias in node.names:
                yield from _module_files(start, [*parts, alias.name])


def _module_files(folder: Path, parts: Sequence[str]) -> Iterator[Path]:
    """The files that importing a dotted name runs, those of packages above it included; none of eva's own."""
    if parts and parts[0] in EVA:
        return
    for count in range(1, len(parts) + 1):
        base = folder.joinpath(*parts[:count])
        yield from (path for path in (base / "__init__.py", base.with_name(base.name + ".py")) if path.is_file())


def load_function(file: str, name: str, digest: str) -> Callable[..., Any]:
    """Import a function.

    Raises:
        DataError: if its source is not what it was when it was resolved, it cannot be imported, or another module has a local one's name.
    """
    try:
        function = resolve_function(f"{file}:{name}", file)
    except ConfigError as error:
        raise DataError(str(error)) from error
    if function.digest != digest:
        raise DataError(f"{file}, or a module beside it, has changed since the run started; start it again to use the new version")
    try:
        found = getattr(_imported(function), name, None)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise DataError(f"{file} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise DataError(f"{name} in {file} is a {type(found).__name__}; expected a function")
    return found


def _imported(function: NamedFunction) -> Any:
    """The module of a function, imported anew together with the local modules that it imports."""
    folder = import_folder(function.file)
    own = function.file.relative_to(folder).as_posix()
    for path in function.sources:
        name = _module_name(path)
        if _is_taken(name.partition(".")[0], folder):
            if path == own and not _imports_itself(function):
                continue  # it is never imported under its own name, whose module is another one
            raise ImportError(f"there is another module {name}, Python's own or installed; give {folder / path} another name")
        sys.modules.pop(name, None)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        for path in function.sources:
            if path != own:  # also those that are imported late, when the folder is no longer searched
                importlib.import_module(_module_name(path))
        return _module(function.file, own)
    finally:
        sys.path.remove(str(folder))


def _imports_itself(function: NamedFunction) -> bool:
    """Whether a file imports a module of its own name, or lies in a package."""
    folder = import_folder(function.file)
    own = function.file.relative_to(folder).as_posix()
    return "/" in own or any(
        function.file in _local_imports(ast.parse(source), folder / path, folder) for path, source in function.sources.items()
    )


def _module(file: Path, path: str) -> Any:
    """A file's module: of a package under its own name, else under one that no other module has."""
    if "/" in path:
        return importlib.import_module(_module_name(path))
    name = f"eva_functions_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _is_taken(name: str, folder: Path) -> bool:
    """Whether a module's name is one of Python's own, of an installed package or of eva's."""
    spec = importlib.machinery.PathFinder.find_spec(name)
    installed = spec is not None and spec.origin is not None and Path(spec.origin).is_relative_to(sys.prefix)
    return name in (*sys.stdlib_module_names, *EVA) or (installed and not folder.is_relative_to(sys.prefix))


def _module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
