"""The direction of imports, and what the command line must not import early."""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEVELS = {
    "cli": 9,
    "eva_stages.api": 8,
    "eva_stages.doctor": 8,
    "pipelines": 7,
    "eva_stages.publishing": 6,
    "eva_stages.views": 5,
    "eva_stages.checking": 4,
    "eva_stages.planning": 4,
    "eva_stages.creator": 3,
    "eva_stages.solver": 3,
    "eva_stages.evaluation": 3,
    "eva_stages.models": 2,
    "eva_stages.core": 1,
    "eva_stages.lettercraft": 1,
}
SOURCES = [path for folder in ("cli", "pipelines", "eva_stages") for path in sorted((ROOT / folder).rglob("*.py"))]


def room(module: str) -> str | None:
    return next((name for name in LEVELS if module == name or module.startswith(f"{name}.")), None)


def imported_modules(path: Path) -> list[str]:
    tree = ast.parse(path.read_text())
    module_names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    return module_names + [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downhill(path: Path) -> None:
    own_room = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for module in imported_modules(path):
        other_room = room(module)
        if own_room is None or other_room is None or own_room == other_room:
            continue
        equal_and_foundational = LEVELS[own_room] == LEVELS[other_room] == 1 and own_room == "eva_stages.lettercraft"
        assert LEVELS[other_room] < LEVELS[own_room] or equal_and_foundational, f"{path} imports {module}, which is not below it"


def test_files_are_short_and_have_names_of_their_own() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in SOURCES}
    assert not {name: length for name, length in lengths.items() if length > 300}
    names = Counter(path.name for path in SOURCES if path.name != "__init__.py")
    assert not {name: count for name, count in names.items() if count > 1}


def test_help_imports_no_model_library() -> None:
    code = (
        "import sys; sys.argv = ['eva', '--help']\n"
        "from cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'distilabel', 'datasets', 'trl', 'litellm', 'pyarrow', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize(("command", "output"), [("validate", "is valid"), ("doctor", "What the recipe quickstart needs")])
def test_checking_a_recipe_imports_no_distilabel(command: str, output: str) -> None:
    """The import takes seconds, and pydantic warns during it."""
    code = (
        f"import sys; sys.argv = ['eva', '{command}', 'quickstart']\n"
        "from cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'distilabel', 'datasets', 'trl', 'litellm'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert output in process.stdout
    assert re.fullmatch(r"next: .*: eva (plan|validate) quickstart\n", process.stderr)
