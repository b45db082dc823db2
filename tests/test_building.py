"""From a recipe to its stages: every file is read once, builders read nothing, and every deferred call fits its target."""

import builtins
import inspect
import io
import os
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from eva_stages.checking.recipe_references import FileReference, FunctionReference, ModelReference, references
from eva_stages.checking.resolution import resolve
from eva_stages.core import fingerprint
from eva_stages.core.config.evaluation_config import benchmark_name
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.errors import ConfigError
from eva_stages.core.named_functions import NamedFunction
from eva_stages.core.packaged_files import packaged_recipes
from eva_stages.core.recipe_files import load_recipe
from eva_stages.core.resolved import Checkpoint, Resolved
from eva_stages.core.stage import FunctionStage, Outside, Stage, closure, load_attribute, uses
from eva_stages.evaluation.benchmark_files import file_sources
from pipelines.iteration import iterations
from tests.building import check

NAMES = [recipe.name for recipe in packaged_recipes()]
READERS = (
    (builtins, "open"),
    (io, "open"),
    *((os, name) for name in ("open", "stat", "lstat", "listdir", "scandir", "readlink")),
    (socket, "socket"),
    (socket, "getaddrinfo"),
)


def stand_ins(recipe: Recipe) -> Resolved:
    """Facts about everything that a recipe names, as if all of it were on this machine."""
    checkpoints, files, functions = {}, {}, {}
    for reference in references(recipe):
        match reference:
            case ModelReference(_, model, revision):
                checkpoints[model, revision] = Checkpoint(model, Path("/nowhere") / model, "0" * 40, "{{ strftime_now('%Y') }}")
            case FileReference(_, source):
                files[source] = Outside("file", Path("/nowhere/file"), "0" * 64)
            case FunctionReference(_, choice):
                functions[choice] = NamedFunction(
                    Path("/nowhere/functions.py"), choice.rpartition(":")[2], {"functions.py": b""}, Path("/nowhere")
                )
    benchmarks = {
        benchmark_name(benchmark): {name: files[source] for name, source in file_sources(benchmark).items()}
        for benchmark in recipe.evaluation.benchmarks
    }
    return Resolved(checkpoints, files, benchmarks, functions, commit="0" * 40)


def stages_of(recipe: Recipe, resolved: Resolved) -> list[Stage]:
    return closure([stage for iteration in iterations(recipe, resolved) for stage in iteration.stages])


@pytest.mark.parametrize("name", NAMES)
def test_builders_use_neither_disk_nor_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe(name)
    resolved = stand_ins(recipe)

    def refuse_access(*arguments: Any, **options: Any) -> None:
        raise AssertionError(f"a builder reads {arguments}")

    with monkeypatch.context() as patch:
        for module, attribute in READERS:
            patch.setattr(module, attribute, refuse_access)
        stages = stages_of(recipe, resolved)
    assert len({stage.fingerprint for stage in stages}) == len(stages)


@pytest.mark.parametrize("name", NAMES)
def test_every_deferred_call_fits_its_target(name: str) -> None:
    """A wrong or missing argument is found here, not after the earlier stages were paid for."""
    recipe = load_recipe(name)
    for stage in stages_of(recipe, stand_ins(recipe)):
        for use in uses(stage):
            is_stage_function = isinstance(stage, FunctionStage) and use.target == stage.function.target
            context = (None,) if is_stage_function else ()
            try:
                inspect.signature(load_attribute(use.target)).bind(*context, **use.arguments, **use.runtime)
            except TypeError as error:
                raise AssertionError(f"{stage.label}: {use.target}: {error}") from error


def test_each_model_and_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three iterations, with the policy's files named again as the model of a reward and of an evolver."""
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"question_id": "1", "prompt": "What is a lake?"}\n')
    policy = tmp_path / "policy"
    policy.mkdir()
    for file in resolve(load_recipe("quickstart")).checkpoint("lettercraft", None).path.iterdir():
        (policy / file.name).write_bytes(file.read_bytes())
    overrides = [
        f"policy.model={policy}",
        "iterations=3",
        f"creator.evolve.generator={{kind: transformers, model: {policy}}}",
        f"creator.curate.decontaminate={{against: ['{questions}']}}",
    ]
    recipe = load_recipe("quickstart", overrides)
    counts: Counter[str] = Counter()
    digest = fingerprint.file_digest

    def counting_digest(path: Path) -> str:
        counts[str(path)] += 1
        return digest(path)

    monkeypatch.setattr(fingerprint, "file_digest", counting_digest)
    monkeypatch.setattr("eva_stages.core.homes.file_digest", counting_digest)
    check(recipe)
    assert {str(questions), str(policy / "model.safetensors")} <= set(counts) and set(counts.values()) == {1}


def test_everything_missing_is_reported_at_once(tmp_path: Path) -> None:
    recipe = load_recipe(
        "quickstart",
        [
            f"policy.model={tmp_path}/gone",
            f"creator.evolve.generator={{kind: transformers, model: {tmp_path}/gone-too}}",
            f"creator.curate.decontaminate={{against: ['{tmp_path}/gone.jsonl']}}",
        ],
    )
    errors = resolve(recipe).errors
    places = ["policy.model: ", "creator.evolve.generator.model: ", "creator.curate.decontaminate.against: "]
    assert len(errors) == 3 and all(any(error.startswith(place) for error in errors) for place in places)


def test_a_model_that_cannot_be_found_is_located_once_and_reported_at_each_place(monkeypatch: pytest.MonkeyPatch) -> None:
    located_models = []

    def locate_nothing(model: str, _: str | None, place: str) -> Checkpoint:
        located_models.append(model)
        raise ConfigError([f"{place}: {model} is no local folder and the Hub cannot be reached"])

    monkeypatch.setattr("eva_stages.checking.resolution.find_checkpoint", locate_nothing)
    recipe = load_recipe("quickstart", ["policy.model=org/a", "creator.evolve.generator={kind: transformers, model: org/a}"])
    text = "org/a is no local folder and the Hub cannot be reached"
    assert set(resolve(recipe).errors) == {f"policy.model: {text}", f"creator.evolve.generator.model: {text}"}
    assert located_models == ["org/a"]


def test_a_missing_lora_folder_is_one_error(tmp_path: Path) -> None:
    for folder, text in ((tmp_path / "gone", "there is no folder"), (tmp_path, "has no adapter_config.json")):
        (tmp_path / "file").write_text("no adapter")
        with pytest.raises(ConfigError) as error:
            check(load_recipe("quickstart", [f"policy.generator={{kind: vllm, lora: {folder}}}"]))
        (fault,) = [fault for fault in error.value.faults if fault.startswith("policy.generator.lora: ")]
        assert text in fault


def test_prompts_that_are_missing_are_the_only_error(tmp_path: Path) -> None:
    recipe = load_recipe("quickstart", [f"prompts={{kind: file, path: {tmp_path}/gone.jsonl}}"])
    with pytest.raises(ConfigError) as error:
        check(recipe)
    assert [text.partition(":")[0] for text in error.value.faults] == ["prompts.path"]
