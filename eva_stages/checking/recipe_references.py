"""The models, files, folders and functions that a recipe names, collected from its fields. Nothing is read."""

from collections.abc import Iterator
from typing import NamedTuple

from eva_stages.core.config.creator_config import Decontaminate, Diversity, Topics
from eva_stages.core.config.evaluation_config import Benchmark, CustomBenchmark, LMEval
from eva_stages.core.config.function_fields import function_choices, in_file
from eva_stages.core.config.models_config import Policy, TransformersModel, VLLMGenerator, VLLMModel
from eva_stages.core.config.prompts_config import FilePrompts
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.rewards_config import LocalReward
from eva_stages.core.config.section import Section
from eva_stages.core.homes import FileSource
from eva_stages.core.question_files import EVALUATION_SETS, question_source
from eva_stages.evaluation.benchmark_files import file_sources

PUBLIC = "give a path, or leave it out for the public one"
WITH_MODEL = (Policy, TransformersModel, VLLMModel, LocalReward, Topics, Diversity)


class ModelReference(NamedTuple):
    """A model that a field of the recipe names."""

    place: str
    model: str
    revision: str | None


class FileReference(NamedTuple):
    """A file or folder that a field of the recipe names."""

    place: str
    source: FileSource
    advice: str
    """What to do where it is missing."""


class FunctionReference(NamedTuple):
    """A function in a file that a field of the recipe names."""

    place: str
    choice: str


def references(recipe: Recipe) -> Iterator[ModelReference | FileReference | FunctionReference]:
    """Every model, file and function of a recipe with its place, those of unused sections included."""
    for place, section in sections(recipe):
        if isinstance(section, WITH_MODEL):
            yield ModelReference(f"{place}.model", section.model, section.revision)
        match section:
            case VLLMGenerator(lora=str() as folder):
                yield FileReference(f"{place}.lora", FileSource(folder, folder=True), "give the folder of a LoRA adapter")
            case FilePrompts():
                yield FileReference(f"{place}.path", FileSource(section.path), "give the path of a file with prompts")
            case Decontaminate():
                advice = f"give a path, or one of {', '.join(EVALUATION_SETS)}"
                yield from (FileReference(f"{place}.against", question_source(name), advice) for name in section.against)
            case Benchmark() | LMEval():
                advice = "give a path" if isinstance(section, CustomBenchmark) else PUBLIC
                yield from (FileReference(f"{place}.{name}", source, advice) for name, source in file_sources(section).items())
    yield from (FunctionReference(place, choice) for place, choice, _ in function_choices(recipe) if in_file(choice))


def sections(value: object, place: str = "") -> Iterator[tuple[str, Section]]:
    """A section and all sections below it, with their places."""
    match value:
        case Section():
            yield place, value
            for name in type(value).model_fields:
                yield from sections(getattr(value, name), f"{place}.{name}".strip("."))
        case list() | tuple():
            for index, item in enumerate(value):
                yield from sections(item, f"{place}.{index}")
