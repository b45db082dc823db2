"""Functions in Python files that a recipe names. The content of the file and of its local imports is their identity.

`resolve_function` reads the source and runs nothing. `load_function` imports the file, which runs it and therefore needs the recipe's
`trust_code`; it refuses a file that has changed since it was resolved. While a file is imported, its folder (for a package: the folder
above the package) is on the module search path. Files that a function reads or imports in other ways are not part of its identity.
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

from pydantic import BaseModel, ConfigDict, model_validator

from eva_stages.core.config.function_fields import FunctionField
from eva_stages.core.errors import ConfigError, DataError
from eva_stages.core.fingerprint import fingerprint
from eva_stages.core.stage import Use, load_attribute

Function = Callable[..., Any]
SOURCES = "functions"
"""Folder of a run with the sources of every named function, in one folder per digest."""
EVA = ("cli", "configs", "eva_stages", "hub_cards", "pipelines")


@dataclass(frozen=True)
class NamedFunction:
    """A function in a file."""

    file: Path
    name: str
    sources: dict[str, bytes]
    """Contents of the file and of every local module that it imports, by path below `folder`."""

    folder: Path
    """The folder on the module search path while the file is imported."""

    @property
    def path(self) -> str:
        """The file's path below `folder`."""
        return self.file.relative_to(self.folder).as_posix()

    @property
    def digest(self) -> str:
        """sha256 over the contents, without the file's name."""
        hashes = {path: hashlib.sha256(content).hexdigest() for path, content in self.sources.items() if path != self.path}
        return fingerprint({"file": hashlib.sha256(self.sources[self.path]).hexdigest(), "imports": hashes})

    def save_sources(self, root: Path) -> None:
        """Copy the sources into a run's folder."""
        for name, content in self.sources.items():
            path = root / SOURCES / self.digest / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def use(self) -> Use:
        """The argument for a step; the file's location is not part of its identity."""
        return Use(f"{__name__}:FunctionCode", {"name": self.name, "digest": self.digest}, {"file": str(self.file)})


class FunctionCode(BaseModel):
    """Reference to a function in a file; the process that calls the function loads it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    digest: str
    file: str

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, value: Any) -> Any:
        """In Python, the function may be given as "file.py:name", relative to the current folder."""
        return code_fields(value) if isinstance(value, str) else value

    @property
    def spec(self) -> str:
        """The function as a recipe names it."""
        return f"{self.file}:{self.name}"

    def load(self) -> Function:
        """As `load_function`."""
        return load_function(self.file, self.name, self.digest)


def code_fields(text: str) -> dict[str, str]:
    """The fields of the `FunctionCode` of "file.py:name".

    Raises:
        ConfigError: as `resolve_function`.
    """
    path, _, name = text.rpartition(":")
    file = Path(path).absolute()
    return {"name": name, "digest": resolve_function(f"{file}:{name}", "function").digest, "file": str(file)}


def choice_name(choice: str | FunctionCode) -> str:
    """The name of a step's function."""
    return choice.rpartition(":")[2] if isinstance(choice, str) else choice.name


def load_choice(choice: str | FunctionCode, field: FunctionField) -> Function:
    """A step's function: a built-in function by name, or a function in a file, in Python also as "file.py:name".

    Raises:
        ConfigError, DataError: as `resolve_function` and `load_function` say.
    """
    if isinstance(choice, str) and choice in field.functions:
        return load_attribute(field.functions[choice])
    if isinstance(choice, str) and ".py:" not in choice:
        raise ConfigError(
            [f"there is no function {choice!r}; built-in: {', '.join(field.functions)}; or a function in a file, as file.py:name"]
        )
    return (FunctionCode.model_validate(choice) if isinstance(choice, str) else choice).load()


def known_functions(field: FunctionField) -> dict[str, Function]:
    """The built-in functions of a field by name."""
    return {name: load_choice(name, field) for name in field.names}


def import_folder(file: Path) -> Path:
    """The folder that a file's module is imported from: the file's folder, or the folder above its package."""
    folder = file.parent
    while (folder / "__init__.py").is_file() and folder != folder.parent:
        folder = folder.parent
    return folder


def resolve_function(spec: str, place: str) -> NamedFunction:
    """Find "FILE.py:NAME" with the absolute path of a file, and read its source.

    Args:
        place: the recipe field, for errors.

    Raises:
        ConfigError: if the file does not exist, is not valid Python, or does not define the name.
    """
    path, _, name = spec.rpartition(":")
    file = Path(path)
    if not file.is_file():
        raise ConfigError([f"{place}: there is no file {file}; give a Python file by its path from the recipe, as in functions.py:{name}"])
    try:
        sources = _sources(file)
        function = NamedFunction(file, name, sources, import_folder(file))
        tree = ast.parse(sources[function.path])
    except (SyntaxError, ValueError, RecursionError, OSError) as error:
        raise ConfigError([f"{place}: {file} cannot be read as Python: {error}"]) from error
    if name not in (names := list(_defined_names(tree))) and "*" not in names:
        raise ConfigError([f"{place}: {file} defines no {name!r}; it defines {', '.join(names) or 'nothing'}"])
    return function


def _defined_names(tree: ast.Module) -> Iterator[str]:
    """The names that a module defines or imports; `*` for a star import."""
    queue: list[ast.AST] = list(tree.body)
    while queue:
        node = queue.pop(0)
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
                continue  # its body defines no names of the module
            case ast.Assign(targets=targets):
                yield from (name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.ImportFrom(names=names):
                yield from (alias.asname or alias.name for alias in names)
        queue += ast.iter_child_nodes(node)


def _sources(file: Path) -> dict[str, bytes]:
    """Contents of a file and, recursively, of the local modules that it imports, by path below the import folder."""
    folder = import_folder(file)
    contents: dict[str, bytes] = {}
    queue = [file, *_module_files(folder, file.relative_to(folder).with_suffix("").parts)]
    while queue:
        path = queue.pop()
        key = path.relative_to(folder).as_posix()
        if key not in contents:
            contents[key] = path.read_bytes()
            queue += _local_imports(ast.parse(contents[key]), path, folder)
    return dict(sorted(contents.items()))


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
    """The files that importing a dotted name runs, including those of its packages, except eva's."""
    if parts and parts[0] in EVA:
        return
    for count in range(1, len(parts) + 1):
        base = folder.joinpath(*parts[:count])
        yield from (path for path in (base / "__init__.py", base.with_name(base.name + ".py")) if path.is_file())


def load_function(file: str, name: str, digest: str) -> Callable[..., Any]:
    """Import a function.

    Raises:
        DataError: if the source has changed since it was resolved, it cannot be imported, or a local module has the name of another module.
    """
    try:
        function = resolve_function(f"{file}:{name}", file)
    except ConfigError as error:
        raise DataError(str(error)) from error
    if function.digest != digest:
        raise DataError(f"{file}, or a module that it imports, has changed since the run started; rerun to use the new version")
    try:
        attribute = getattr(_import_file(function), name, None)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise DataError(f"{file} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(attribute):
        raise DataError(f"{name} in {file} is a {type(attribute).__name__}; expected a function")
    return attribute


def _import_file(function: NamedFunction) -> Any:
    """The function's module. It and the local modules that it imports are imported again if they were imported before."""
    folder = function.folder
    for path in function.sources:
        name = _module_name(path)
        if _is_taken(name.partition(".")[0], folder):
            if path == function.path and not _imports_itself(function):
                continue  # no import uses this file under that name
            raise ImportError(f"another module {name} is installed or part of Python; rename {folder / path}")
        sys.modules.pop(name, None)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        for path in function.sources:
            if path != function.path:  # also modules that a function imports when it is called, after the search path is restored
                importlib.import_module(_module_name(path))
        return _module(function.file, function.path)
    finally:
        sys.path.remove(str(folder))


def _imports_itself(function: NamedFunction) -> bool:
    """Whether a file imports a module with its own name, or is in a package."""
    folder = function.folder
    return "/" in function.path or any(
        function.file in _local_imports(ast.parse(source), folder / path, folder) for path, source in function.sources.items()
    )


def _module(file: Path, path: str) -> Any:
    """A file's module: under its own name in a package, else under a name that no other module has."""
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
    """Whether a name belongs to a module of Python, of an installed package or of eva."""
    spec = importlib.machinery.PathFinder.find_spec(name)
    is_installed = spec is not None and spec.origin is not None and Path(spec.origin).is_relative_to(sys.prefix)
    return name in (*sys.stdlib_module_names, *EVA) or (is_installed and not folder.is_relative_to(sys.prefix))


def _module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
