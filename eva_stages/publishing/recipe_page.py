"""The reference page of recipes, generated from their schema: `python -m eva_stages.publishing.recipe_page`.

The command also writes the JSON schemas that are shipped for editors, and their line into packaged files that do not have it.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eva_stages.core.config.function_fields import FUNCTION_PATTERN
from eva_stages.core.packaged_files import SCHEMA_MARK, packaged_recipes, packaged_studies
from eva_stages.core.recipe_schema import DOCUMENTS, SCHEMA_FILES, complete_schema, schema_text
from eva_stages.core.text_table import markdown_row

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"
COMMAND = "python -m eva_stages.publishing.recipe_page"
LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
TYPES = {"string": "text", "boolean": "`true`, `false`", "null": "`null`"}
INTRODUCTION = f"""# Recipes

A recipe is a YAML file that describes a run. `eva recipes ls` lists the packaged ones, `eva recipes show NAME` prints one,
`eva recipes copy NAME PATH` copies it, `eva recipes diff A B` prints the fields in which two differ, and `eva validate` reports every error
with its line. The fields are below; `--set creator.metric=uniform` overrides one, and the index of an entry is its name in a list
(`--set evaluation.benchmarks.0.samples=2`). Paths in a recipe are relative to its file, paths on the command line to the current folder.

This page is generated from the code: `{COMMAND}`.

## Recipes that extend others
```yaml
extends: gemma-2-9b-it/dpo_eva   # a packaged recipe, or a path relative to this file
solver:
  loss: {{beta: 0.1}}              # changes one field of the loss
  training: {{epochs: 1}}
evaluation:
  benchmarks: [{{kind: ifeval}}]   # replaces the list
```
- Mappings are merged, key by key. Lists, numbers, texts and null replace what was there.
- A mapping whose `kind` changes replaces the whole section: `loss: {{kind: simpo}}` has none of the fields of the loss that it replaces.
  (`--set solver.loss.kind=simpo` changes that field alone.)
- Without `name`, the recipe has the name of its file, so that its run has a folder of its own.
- A chain of files may extend each other. Relative paths are relative to the file that they are written in; those of a packaged recipe are
  relative to the file that extends it. An error names the file and the line that the value came from.
- `eva recipes show FILE` prints what results. A run's folder has the result (`recipe.yaml`), so it needs none of the files.

## Editors
The first line of every packaged recipe names the JSON schema of recipes: `# yaml-language-server: $schema=...`. Editors with a YAML
language server show descriptions, complete fields and mark errors; in a copy the line names the installed schema. `eva recipes schema`
and `eva recipes schema study` print the schemas. In the shell, recipes, runs, stages, fields, their values and benchmarks are completed
after `eva --install-completion` and in a new shell, if `eva` is on the path (`source .venv/bin/activate`).
"""


def recipe_page() -> str:
    """The page as Markdown."""
    recipe, study = (Reference(complete_schema(name)) for name in DOCUMENTS)
    parts = [INTRODUCTION, "## Fields", recipe.table(recipe.schema)]
    for field, entry in recipe.schema["properties"].items():
        parts += recipe.sections(field, entry)
    parts += ["## Studies", "The file of `eva ablate` ([ablations.md](ablations.md)).", study.table(study.schema)]
    for field, entry in study.schema["properties"].items():
        parts += study.sections(field, entry)
    return "\n\n".join(part.strip() for part in parts) + "\n"


class Reference:
    """The sections of a JSON schema, each described at the first field that can have it."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.schema = schema
        self.places: dict[str, list[str]] = {}
        """Fields that can have each section, by its name in the schema."""
        self.titles: dict[str, str] = {}
        self._visit(schema, "", "")
        self._described_names: set[str] = set()

    def _visit(self, section: dict[str, Any], prefix: str, owner: str) -> None:
        """Find the places of the sections in a section; `owner`: its kind."""
        for field, entry in section["properties"].items():
            for name in section_names(entry):
                place = f"{prefix}{field}{'.0' if _is_list(entry) else ''}"
                if place in self.places.setdefault(name, []):
                    continue
                self.places[name].append(place)
                kind = self._kind(name)
                title = f"{place} (kind {kind})" if kind else f"{place} (of kind {owner})" if owner else place
                self.titles.setdefault(name, title)
                self._visit(self.schema["$defs"][name], f"{place}.", kind)

    def _kind(self, name: str) -> str:
        """The kind by which a section is chosen, if there are several."""
        kind = self.schema["$defs"][name]["properties"].get("kind", {})
        return "" if "default" in kind else ", ".join([kind["const"]] if "const" in kind else kind.get("enum", []))

    def sections(self, field: str, entry: dict[str, Any]) -> Iterator[str]:
        """Headings and tables of the sections that a field can have, and of those in them, that are not described yet."""
        names = [name for name in dict.fromkeys(self._names_below(entry)) if name not in self._described_names]
        self._described_names |= {*names}
        if names and self.titles[names[0]] != field:
            yield f"## {field}"
        for name in names:
            section = self.schema["$defs"][name]
            yield f"{'##' if self.titles[name] == field else '###'} {self.titles[name]}"
            yield _markdown(section.get("description", ""))
            if len(self.places[name]) > 1:
                yield f"Also: {', '.join(f'`{place}`' for place in self.places[name][1:])}."
            yield self.table(section)

    def _names_below(self, entry: dict[str, Any]) -> Iterator[str]:
        for name in section_names(entry):
            yield name
            for inner_entry in self.schema["$defs"][name]["properties"].values():
                yield from self._names_below(inner_entry)

    def table(self, section: dict[str, Any]) -> str:
        rows = [["field", "value", "default", "meaning"], ["---"] * 4]
        for field, entry in section["properties"].items():
            is_required = field in section.get("required", ()) and "default" not in entry
            meaning = _markdown(" ".join(entry.get("description", "").split()))
            rows.append([f"`{field}`", self._value(entry), "required" if is_required else _default(entry), meaning])
        return "\n".join(markdown_row(row) for row in rows)

    def _value(self, entry: dict[str, Any]) -> str:
        """What a field can be, in words."""
        match entry:
            case {"$ref": str(reference)}:
                title = self.titles[reference.rpartition("/")[2]]
                text = title.partition(" (kind ")[2].removesuffix(")") or "section"
                return f"[{text}](#{re.sub(r'[^a-z0-9_ -]', '', title.lower()).replace(' ', '-')})"
            case {"anyOf": list(choices)} | {"oneOf": list(choices)}:
                return ", ".join(dict.fromkeys(self._value(choice) for choice in choices))
            case {"const": value}:
                return f"`{value}`"
            case {"enum": values}:
                return ", ".join(f"`{value}`" for value in values)
            case {"type": "array", "prefixItems": items}:
                return f"list of {len(items)}: {self._value(items[0])}"
            case {"type": "array", "items": items}:
                return f"list of: {self._value(items)}"
            case {"type": "object", "additionalProperties": dict(entries)}:
                return f"mapping to: {self._value(entries)}"
            case {"type": "object"}:
                return "mapping"
            case {"type": "string", "pattern": str(pattern)} if pattern == FUNCTION_PATTERN:
                return "function in a file, as in `FILE.py:NAME`"
            case {"type": str(kind)}:
                limits = [f"{sign} {entry[key]:g}" for key, sign in LIMITS.items() if key in entry]
                pattern = f" matching `{entry['pattern']}`" if "pattern" in entry else ""
                return f"{entry.get('format') or TYPES.get(kind, kind)} {' and '.join(limits)}".strip() + pattern
            case _:
                return "any"


def section_names(entry: dict[str, Any]) -> Iterator[str]:
    """Names of the sections that a field can have."""
    if "$ref" in entry:
        yield entry["$ref"].rpartition("/")[2]
    inner_entries = [*entry.get("anyOf", ()), *entry.get("oneOf", ()), entry.get("items"), entry.get("additionalProperties")]
    for inner_entry in inner_entries:
        if isinstance(inner_entry, dict):
            yield from section_names(inner_entry)


def _is_list(entry: dict[str, Any]) -> bool:
    return entry.get("type") == "array" or any(_is_list(choice) for choice in entry.get("anyOf", ()))


def _default(entry: dict[str, Any]) -> str:
    """The default of a field; nothing for a section whose fields have defaults."""
    default = entry.get("default")
    if "default" not in entry or (isinstance(default, dict) and "$ref" in entry):
        return ""
    return f"`{default if isinstance(default, str) and default else json.dumps(default)}`"


def _markdown(text: str) -> str:
    """A text in which angle brackets are no HTML."""
    return "`".join(part if index % 2 else part.replace("<", "&lt;") for index, part in enumerate(text.split("`")))


def main() -> None:
    PAGE.write_text(recipe_page(), encoding="utf-8")
    for name, schema_file in SCHEMA_FILES.items():
        schema_file.write_text(schema_text(name), encoding="utf-8")
        for file in packaged_recipes() if name == "recipe" else packaged_studies():
            if not file.text.startswith(SCHEMA_MARK):
                line = f"{SCHEMA_MARK}{os.path.relpath(schema_file, file.path.parent)}\n"
                file.path.write_text(line + file.text, encoding="utf-8")


if __name__ == "__main__":
    main()
