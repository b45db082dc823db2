"""The Hub's documented rules for a card's metadata, used by the test server's validation route.

They are those of the Hub's model and data set card specifications (hub-docs) and of its list of licences.
"""

import re
from typing import Any

import yaml
from huggingface_hub import DatasetCard, ModelCard

FRONT = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
LICENCES = {"apache-2.0", "mit", "cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0", "llama3.1", "gemma", "openrail", "other", "unknown"}
SIZES = re.compile(r"n<1K|1K<n<10K|10K<n<100K|100K<n<1M|1M<n<10M|10M<n<100M|100M<n<1B|n>1T|n>100M")
REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")


def card_faults(text: str, kind: str) -> list[str]:
    """All errors in a README.md's metadata."""
    front_matter = FRONT.match(text)
    if front_matter is None:
        return ["no metadata"]
    try:
        data = yaml.safe_load(front_matter[1])
    except yaml.YAMLError as error:
        return [f"not valid YAML: {error}"]
    if not isinstance(data, dict):
        return ["metadata are no mapping"]
    (ModelCard if kind == "model" else DatasetCard)(text)  # the client's own parsing, model-index included
    faults = [f"{name}: {fault}" for name in data for fault in _field(name, data[name])]
    if data.get("license") == "other" and "license_name" not in data:
        faults.append("license_name: needed with license other")
    return faults


def _field(name: str, value: Any) -> list[str]:
    match name:
        case "license":
            return [] if value in LICENCES else [f"{value} is no licence of the Hub"]
        case "tags":
            return [] if isinstance(value, list) and all(isinstance(tag, str) and tag for tag in value) else ["a list of texts"]
        case "base_model" | "datasets":
            ids = value if isinstance(value, list) else [value]
            return [f"{repo_id} is no repository id" for repo_id in ids if not REPO_ID.fullmatch(str(repo_id))]
        case "size_categories":
            return [f"{size} is no size" for size in value if not SIZES.fullmatch(size)]
        case "configs":
            return [fault for config in value for fault in _config(config)] + _unique([config.get("config_name") for config in value])
        case "model-index":
            return [fault for model in value for fault in _model(model)]
        case "library_name" | "pipeline_tag" | "pretty_name" | "license_name" | "license_link" | "base_model_relation":
            return [] if isinstance(value, str) else ["a text"]
        case "task_categories":
            return [] if value == ["text-generation"] else [f"{value} is not known here"]
        case _:
            return [f"unknown field {name}"]


def _unique(names: list[Any]) -> list[str]:
    return [] if len(set(names)) == len(names) else ["a name is given twice"]


def _config(config: dict[str, Any]) -> list[str]:
    faults = [] if isinstance(config.get("config_name"), str) else ["config_name is missing"]
    for file in config.get("data_files", []):
        if set(file) != {"split", "path"} or ".." in file["path"] or file["path"].startswith("/"):
            faults.append(f"data_files: {file}")
    return faults


def _model(model: dict[str, Any]) -> list[str]:
    faults = [] if isinstance(model.get("name"), str) else ["name is missing"]
    for result in model.get("results", []):
        faults += [f"results: {place} is missing" for place in ("task", "dataset", "metrics") if place not in result]
        faults += ["task.type is missing"] if not isinstance(result["task"].get("type"), str) else []
        faults += [f"dataset.{key} is missing" for key in ("type", "name") if not isinstance(result["dataset"].get(key), str)]
        for metric in result["metrics"]:
            if not isinstance(metric.get("type"), str) or not isinstance(metric.get("value"), int | float | str):
                faults.append(f"metric {metric}")
    return faults
