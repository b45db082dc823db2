"""Shell completion of recipes, studies, runs, stages, fields and benchmarks.

It answers within 0.2 s: it imports neither pydantic nor YAML, and finds fields in the shipped JSON schema.
"""

import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any, NoReturn

import typer

from cli.bench_names import BENCHMARKS
from eva_stages.core.packaged_files import FOLDER, packaged_recipes, packaged_studies

REQUEST = "_EVA_COMPLETE"
"""The environment variable by which a shell asks for completions."""
STAGES = ("prompts", "respond", "reward", "inform", "select", "evolve", "curate", "mix", "pair", "train", "health")
"""Stages of most recipes, for a recipe that has not run yet."""
RUNS = Path("runs")
VALUES_OF_TYPES: dict[str, tuple[bool | None, ...]] = {"boolean": (True, False), "null": (None,)}


def print_completions(app: Callable[[], None]) -> NoReturn:
    """Print what the shell asks for, and exit."""
    from eva_stages.core.patches import complete_without_pydantic

    complete_without_pydantic()
    prefix = _join_split_words()
    output = io.StringIO()
    with redirect_stdout(output), suppress(Exception, SystemExit):  # a traceback would be printed into the line that the user types
        app()
    print("".join(line.removeprefix(prefix) for line in output.getvalue().splitlines(keepends=True)), end="")
    sys.exit()


def _join_split_words() -> str:
    """Join the words that bash splits at `=` and `:`. Returns the part of the current word that bash does not expect in a completion."""
    if "COMP_CWORD" not in os.environ:
        return ""
    words, current_index = os.environ["COMP_WORDS"].split("\n"), int(os.environ["COMP_CWORD"])
    joined_words, position, prefix = join_words(words, current_index)
    os.environ |= {"COMP_WORDS": "\n".join(joined_words), "COMP_CWORD": str(position)}
    return prefix


def join_words(words: list[str], current_index: int) -> tuple[list[str], int, str]:
    """Words with `a`, `=`, `b` as one word; the index of the current one, and its part up to the last `=` or `:`, without an option."""
    joined_words: list[str] = []
    position, prefix = current_index, ""
    for index, word in enumerate(words):
        if index and word and (word in ("=", ":") or words[index - 1] in ("=", ":")):
            joined_words[-1] += word
        else:
            joined_words.append(word)
        if index == current_index:
            position = len(joined_words) - 1
            prefix = joined_words[-1] if word in ("=", ":") else joined_words[-1].removesuffix(word)
    return joined_words, position, re.sub("^--[a-z-]+=", "", prefix)


def complete_recipe() -> list[str]:
    return [*(recipe.name for recipe in packaged_recipes()), *_yaml_files()]


def complete_study(ctx: typer.Context) -> list[str]:
    return complete_recipe() if ctx.params.get("vary") else [*(study.name for study in packaged_studies()), *_yaml_files()]


def complete_packaged() -> list[str]:
    return [file.name for file in (*packaged_recipes(), *packaged_studies())]


def _yaml_files() -> list[str]:
    return sorted(path.name for path in Path().iterdir() if path.suffix in (".yaml", ".yml"))


def complete_run(incomplete: str) -> list[str]:
    """Runs and studies below runs/; after the name of a study its runs."""
    patterns = ("*/*/*/recipe.yaml",) if "/" in incomplete else ("*/recipe.yaml", "*/study.json")
    return sorted(path.parent.relative_to(RUNS).as_posix() for pattern in patterns for path in RUNS.glob(pattern))


def complete_stage(ctx: typer.Context, incomplete: str) -> list[str]:
    """Stages of the recipe's run: by name, and after a digit with their iteration."""
    recipe = str(ctx.params.get("recipe") or "quickstart")
    folder = Path(ctx.params.get("run_dir") or RUNS / _run_name(recipe))
    try:
        labels = [str(stage["folder"]).rpartition("-")[0] for stage in json.loads((folder / "stages.json").read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, KeyError):  # it has not run yet, or another version of eva wrote the file
        labels = [f"{iteration}-{name}" for iteration in range(3) for name in STAGES]
    return labels if incomplete[:1].isdigit() else list(dict.fromkeys(label.partition("-")[2] for label in labels))


def _run_name(recipe: str) -> str:
    with suppress(OSError, ValueError):
        path = Path(recipe) if Path(recipe).is_file() else FOLDER / f"{recipe}.yaml"
        if match := re.search(r"^name: *['\"]?([\w.-]+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            return match[1]
    return Path(recipe).stem


def complete_benchmarks(incomplete: str) -> list[str]:
    """Names after those that the list has already."""
    chosen_names, comma, _ = incomplete.rpartition(",")
    return [f"{chosen_names}{comma}{name}" for name in BENCHMARKS if name not in chosen_names.split(",")]


def complete_field(incomplete: str) -> list[str]:
    """The next level of `A.B=C`: sections end with a dot, other fields with an equals sign; then the allowed values.

    Where only one section remains it is opened, so that no shell takes it for a complete word.
    """
    schema = json.loads((FOLDER / "recipe.schema.json").read_text(encoding="utf-8"))
    path, equals, _ = incomplete.partition("=")
    prefix = path if equals else path.rpartition(".")[0]
    choices: list[Any] = [schema]
    for part in prefix.split(".") if prefix else []:
        choices = _children(schema, choices).get(part, [])
    if equals:
        return [f"{path}={value}" for value in _values(schema, choices)]
    while True:
        fields = {f"{prefix}.{field}" if prefix else field: entries for field, entries in _children(schema, choices).items()}
        fields = {field: entries for field, entries in fields.items() if field.startswith(path) and field != "extends"}
        if len(fields) != 1:
            return [f"{field}{'.' if _children(schema, entries) else '='}" for field, entries in fields.items()]
        ((prefix, choices),) = fields.items()
        if not _children(schema, choices):
            return [f"{prefix}={value}" for value in _values(schema, choices) or [""]]


def _children(schema: dict[str, Any], choices: list[Any]) -> dict[str, list[Any]]:
    """The fields of a section, of all of its kinds; of a list of sections, the number of the first."""
    children: dict[str, list[Any]] = {}
    for choice in _alternatives(schema, choices):
        for field, entry in choice.get("properties", {}).items():
            children.setdefault(field, []).append(entry)
        if "items" in choice and _children(schema, [choice["items"]]):
            children.setdefault("0", []).append(choice["items"])
    return children


def _values(schema: dict[str, Any], choices: list[Any]) -> list[str]:
    """The values that a field allows, else its default."""
    values: list[Any] = []
    for choice in _alternatives(schema, choices):
        values += choice.get("enum", [choice["const"]] if "const" in choice else [])
        values += VALUES_OF_TYPES.get(choice.get("type", ""), ())
    if not any(value is not None for value in values):
        values = [choice["default"] for choice in choices if choice.get("default") not in (None, [], {})] + values
    return list(dict.fromkeys(value if isinstance(value, str) else json.dumps(value) for value in values))


def _alternatives(schema: dict[str, Any], choices: list[Any]) -> Iterator[dict[str, Any]]:
    for choice in choices:
        if "$ref" in choice:
            yield from _alternatives(schema, [schema["$defs"][choice["$ref"].rpartition("/")[2]]])
        elif "anyOf" in choice and "properties" not in choice:
            yield from _alternatives(schema, choice["anyOf"])
        else:
            yield choice
