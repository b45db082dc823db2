"""The JSON schemas of recipes and studies, and the line in every packaged file that editors find them by."""

import datetime
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import pytest
import yaml

from eva_stages.core.packaged_files import FOLDER, SCHEMA_MARK, PackagedFile, packaged_recipes, packaged_studies
from eva_stages.core.recipe_files import load_recipe
from eva_stages.core.recipe_schema import DOCUMENTS, SCHEMA_FILES, json_schema, schema_text
from eva_stages.publishing.recipe_page import COMMAND
from tests.conftest import run_eva

jsonschema = pytest.importorskip("jsonschema")
FILES = [*(("recipe", file) for file in packaged_recipes()), *(("study", file) for file in packaged_studies())]
VALIDATORS = {name: jsonschema.Draft202012Validator(json_schema(name)) for name in DOCUMENTS}


def faults_of(name: str, data: Any) -> list[str]:
    return [str(error.message) for error in VALIDATORS[name].iter_errors(json.loads(json.dumps(data, default=datetime.date.isoformat)))]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_shipped_schema_is_that_of_the_code(name: str) -> None:
    VALIDATORS[name].check_schema(json_schema(name))
    is_current = SCHEMA_FILES[name].read_text() == schema_text(name)
    assert is_current, f"{SCHEMA_FILES[name]} is stale; rewrite it with {COMMAND}"
    assert run_eva("recipes", "schema", name).stdout == schema_text(name)


@pytest.mark.parametrize(("name", "file"), FILES, ids=[file.name for _, file in FILES])
def test_a_packaged_file_names_its_schema_and_fits_it(name: str, file: PackagedFile) -> None:
    first_line = file.text.partition("\n")[0]
    assert first_line.startswith(SCHEMA_MARK), f"no line for editors; {COMMAND} writes it"
    assert (file.path.parent / first_line.removeprefix(SCHEMA_MARK)).resolve() == SCHEMA_FILES[name]
    assert faults_of(name, yaml.safe_load(file.text)) == []


@pytest.mark.parametrize("name", ["quickstart", "lettercraft/trained_creator", "smollm2-135m/offline"])
def test_a_resolved_recipe_fits_the_schema(name: str) -> None:
    assert faults_of("recipe", load_recipe(name).model_dump(mode="json")) == []


@pytest.mark.parametrize(
    "text",
    [
        "extends: quickstart",
        "{extends: quickstart, solver: {loss: {beta: 0.05}}, creator: {evolve: {generations: 2}}}",
        "{extends: quickstart, creator: {metric: null, evolve: {method: 'mine.py:method'}}, runtime: {date: 2026-01-31}}",
    ],
)
def test_a_recipe_that_extends_another_may_be_incomplete(text: str) -> None:
    assert faults_of("recipe", yaml.safe_load(text)) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{name: x}", "not valid under any"),
        ("{extends: quickstart, sead: 1}", "'sead' was unexpected"),
        ("{extends: quickstart, seed: -1}", "less than the minimum"),
        ("{extends: quickstart, creator: {metric: reward_gab}}", "'reward_gab'"),
        ("{extends: quickstart, solver: {loss: {kind: dpp}}}", "'dpp'"),
        ("{extends: quickstart, solver: {loss: {kind: dpo, gamma_ratio: 1}}}", "gamma_ratio"),
    ],
)
def test_what_is_wrong_in_a_recipe_does_not_fit_the_schema(text: str, says: str) -> None:
    assert any(says in fault for fault in faults_of("recipe", yaml.safe_load(text)))


def test_what_is_wrong_in_a_study_does_not_fit_the_schema() -> None:
    study = {"question": "q?", "base": "quickstart", "seeds": 3, "arms": {"a": None, "b": {"seed": 1}}}
    assert faults_of("study", study) == []
    assert faults_of("study", {**study, "seeds": "many"}) and faults_of("study", {**study, "arm": {}}) and faults_of("study", {"seeds": 1})


@pytest.mark.parametrize(("name", "recipe"), [("recipe", "lettercraft/deep"), ("study", "metrics")])
def test_a_copy_names_the_installed_schema(name: str, recipe: str, tmp_path: Path) -> None:
    run_eva("recipes", "copy", recipe, str(tmp_path / "own folder/mine.yaml"))
    text = (tmp_path / "own folder/mine.yaml").read_text()
    place = text.partition("\n")[0].removeprefix(SCHEMA_MARK)
    assert Path(url2pathname(urlparse(place).path)) == SCHEMA_FILES[name] and SCHEMA_FILES[name].parent == FOLDER
    assert text == run_eva("recipes", "show", recipe).stdout
