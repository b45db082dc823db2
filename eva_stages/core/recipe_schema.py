"""JSON schemas of recipes and studies, for editors.

A schema finds unknown fields and wrong values. It demands no field below the top level, because a recipe that extends another has them from
there: `eva validate` finds what is missing, and what does not fit together.
"""

import json
from typing import Any, Literal

from eva_stages.core.config.recipe import EXTENDS, Recipe
from eva_stages.core.config.section import Section
from eva_stages.core.config.study_config import Study
from eva_stages.core.packaged_files import FOLDER

SchemaName = Literal["recipe", "study"]
DOCUMENTS: dict[SchemaName, type[Section]] = {"recipe": Recipe, "study": Study}
SCHEMA_FILES = {name: FOLDER / f"{name}.schema.json" for name in DOCUMENTS}


def complete_schema(name: SchemaName) -> dict[str, Any]:
    """The schema of a recipe or a study, with its required fields and the fields that only a file has."""
    kind = DOCUMENTS[name]
    schema = kind.model_json_schema()
    file_fields = {field: {"type": "string", "description": description} for field, description in kind.FILE_FIELDS.items()}
    return {**schema, "properties": {**file_fields, **schema["properties"]}}


def json_schema(name: SchemaName) -> dict[str, Any]:
    """The schema of a file with a recipe or a study, for editors."""
    schema = complete_schema(name)
    required_fields = {"required": schema["required"]}
    requirement = {"anyOf": [{"required": [EXTENDS]}, required_fields]} if EXTENDS in schema["properties"] else required_fields
    return {**_relaxed_schema(schema), "title": f"eva {name}", **requirement}


def schema_text(name: SchemaName) -> str:
    """The schema as the file that is shipped."""
    return json.dumps(json_schema(name), indent=1, ensure_ascii=False) + "\n"


def _relaxed_schema(schema: Any) -> Any:
    """A schema in which sections may be incomplete: they need no fields, so that one without a `kind` can be of any."""
    match schema:
        case {"properties": dict(properties)}:
            kept_entries = {key: value for key, value in schema.items() if key not in ("required", "title")}
            return {
                **{key: _relaxed_schema(value) for key, value in kept_entries.items() if key != "properties"},
                "properties": {field: _relaxed_schema(value) for field, value in properties.items()},
            }
        case {"nullable": True}:
            return {"anyOf": [_relaxed_schema({key: value for key, value in schema.items() if key != "nullable"}), {"type": "null"}]}
        case dict():
            entries = {key: _relaxed_schema(value) for key, value in schema.items() if key not in ("discriminator", "title")}
            return {"anyOf" if key == "oneOf" else key: value for key, value in entries.items()}
        case list():
            return [_relaxed_schema(entry) for entry in schema]
        case _:
            return schema
