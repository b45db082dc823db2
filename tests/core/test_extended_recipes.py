"""Recipes that extend others: what results, where errors are, and what relative paths are relative to."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from eva_stages.core.errors import ConfigError
from eva_stages.core.recipe_files import load_recipe, recipe_fields, recipe_of_mapping
from eva_stages.core.study_files import load_study


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def faults_of(recipe: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        load_recipe(recipe, overrides)
    return "\n".join(error.value.faults)


@pytest.mark.parametrize(
    ("parent", "child", "merged_data"),
    [
        ("a: {b: 1, c: 2}", "a: {c: 3}", {"a": {"b": 1, "c": 3}}),
        ("a: [1, 2]", "a: [3]", {"a": [3]}),
        ("a: {b: 1}", "a: null", {"a": None}),
        ("a: null", "a: {b: 1}", {"a": {"b": 1}}),
        ("a: {b: 1}", "a: 2", {"a": 2}),
        ("a: {kind: x, b: 1}", "a: {kind: y, c: 2}", {"a": {"kind": "y", "c": 2}}),
        ("a: {kind: x, b: {d: 1}}", "a: {kind: x, b: {e: 2}}", {"a": {"kind": "x", "b": {"d": 1, "e": 2}}}),
        ("a: {kind: x, b: 1}", "a: {c: 2}", {"a": {"kind": "x", "b": 1, "c": 2}}),
        ("a: {b: 1}", "a: {kind: y}", {"a": {"b": 1, "kind": "y"}}),
    ],
)
def test_mappings_merge_and_lists_and_other_kinds_replace(parent: str, child: str, merged_data: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path / "parent.yaml", f"name: parent\n{parent}\n")
    mine = write(tmp_path / "mine.yaml", f"extends: parent.yaml\n{child}\n")
    assert recipe_fields(mine).data == {"name": "mine", **merged_data}


def test_a_recipe_extends_a_packaged_one_and_has_its_own_name(tmp_path: Path) -> None:
    mine = write(tmp_path / "mine.yaml", "extends: quickstart\nsolver: {loss: {kind: orpo}, training: {epochs: 5}}\n")
    recipe, base = load_recipe(mine, ["seed=7"]), load_recipe("quickstart")
    assert (recipe.name, recipe.seed, recipe.solver.loss.kind, recipe.solver.training.epochs) == ("mine", 7, "orpo", 5)
    assert recipe.solver.training.batch_size == base.solver.training.batch_size and recipe.creator == base.creator


def test_the_chain_may_be_long_and_each_file_has_its_own_folder(tmp_path: Path) -> None:
    prompts = "prompts: {kind: file, path: seeds.jsonl}\n"
    write(
        tmp_path / "shared/base.yaml",
        f"extends: quickstart\n{prompts}creator: {{curate: {{decontaminate: {{against: [held_out.jsonl]}}}}}}\n",
    )
    for name in ("shared/seeds.jsonl", "shared/held_out.jsonl", "mine/functions.py"):
        write(tmp_path / name, "")
    write(tmp_path / "mine/middle.yml", "extends: ../shared/base.yaml\ncreator: {metric: 'functions.py:metric'}\n")
    recipe = load_recipe(write(tmp_path / "mine/mine.yaml", "extends: middle.yml\nname: own-name\n"))
    assert recipe.name == "own-name" and recipe.creator.metric == f"{tmp_path}/mine/functions.py:metric"
    assert recipe.prompts.path == f"{tmp_path}/shared/seeds.jsonl"
    assert recipe.creator.curate.decontaminate.against == (f"{tmp_path}/shared/held_out.jsonl",)


def test_paths_of_a_packaged_recipe_are_relative_to_the_file_that_extends_it(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path / "mine.yaml", "extends: smollm2-135m/offline\n"))
    assert recipe.prompts.path == f"{tmp_path}/offline/questions.jsonl"


def test_an_error_names_the_file_and_line_that_the_value_came_from(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", "extends: quickstart\n\ncreator: {metric: reward_gab}\nlimits: {empty: 2}\n")
    mine = write(tmp_path / "mine.yaml", "extends: base.yaml\niterations: -1\nsolver:\n  loss: {kind: dpp}\nextend: x\n")
    faults = faults_of(mine, "limits.empty=3")
    for place in (
        "base.yaml:3: creator.metric: is 'reward_gab'",
        "mine.yaml:2: iterations: is -1",
        "mine.yaml:4: solver.loss.kind: is 'dpp'",
    ):
        assert place in faults
    assert "--set limits.empty=3: limits.empty: is 3" in faults and "base.yaml:4" not in faults
    assert "mine.yaml:5: extend: unknown field; " in faults and "Did you mean extends?" in faults


def test_a_missing_file_is_named_with_the_folder_of_the_recipe_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "shared/base.yaml", "extends: quickstart\nprompts:\n  kind: file\n  path: seeds.jsonl\n")
    write(tmp_path / "seeds.jsonl", "")
    monkeypatch.chdir(tmp_path)
    fault = faults_of(write(tmp_path / "mine.yaml", "extends: shared/base.yaml\n"))
    assert f"base.yaml:4: prompts.path: there is no seeds.jsonl in {tmp_path}/shared" in fault


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("extends: other.yaml", "extends: there is no file {folder}/other.yaml"),
        (
            "extends: quickstrat",
            "extends: there is no recipe 'quickstrat': give the path of a file, or a packaged recipe: see `eva recipes ls`",
        ),
        ("extends: metrics", "extends: metrics is a study, not a recipe"),
        ("extends: [quickstart]", "extends: is ['quickstart']; expected the name of a packaged recipe"),
        ("extends:", "extends: is None; expected"),
        ("extends: mine.yaml", "extends: {folder}/mine.yaml extends {folder}/mine.yaml; a recipe cannot extend itself"),
        (
            "extends: circle.yaml",
            "mine.yaml extends {folder}/circle.yaml extends {folder}/../{name}/mine.yaml; a recipe cannot extend itself",
        ),
        ("extends: list.yaml", "list.yaml: a recipe is a mapping of fields"),
    ],
)
def test_what_cannot_be_extended_is_an_error_with_its_line(line: str, says: str, tmp_path: Path) -> None:
    write(tmp_path / "circle.yaml", f"name: circle\nextends: ../{tmp_path.name}/mine.yaml\n")
    write(tmp_path / "list.yaml", "- 1\n")
    faults = faults_of(write(tmp_path / "mine.yaml", f"seed: 1\n{line}\n"))
    assert says.format(folder=tmp_path, name=tmp_path.name) in faults
    assert "circle.yaml:2: " in faults or "mine.yaml:2: " in faults or "list.yaml: " in faults


def test_a_packaged_name_in_a_packaged_recipe_is_no_file_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "quickstart", "- no recipe\n")
    monkeypatch.chdir(tmp_path)
    assert load_recipe("lettercraft/orpo").name == "lettercraft-orpo"


def test_set_cannot_extend() -> None:
    assert "--set extends=quickstart: only the file of a recipe can extend another" in faults_of("lettercraft/deep", "extends=quickstart")


def test_a_study_and_its_arms_change_a_recipe_that_extends_another(tmp_path: Path) -> None:
    write(tmp_path / "mine.yaml", "extends: quickstart\niterations: 1\ncreator: {metric: uniform}\n")
    study = {
        "question": "q?",
        "base": "mine.yaml",
        "seeds": 2,
        "set": {"seed": 3},
        "arms": {"a": {}, "b": {"creator.metric": "reward_gap"}},
    }
    loaded_study = load_study(write(tmp_path / "study.yaml", yaml.safe_dump(study)), {})
    assert {arm: recipe.creator.metric for arm, recipe in loaded_study.recipes.items()} == {"a": "uniform", "b": "reward_gap"}
    assert {recipe.iterations for recipe in loaded_study.recipes.values()} == {1} and loaded_study.seeds == (3, 4)


def test_a_mapping_extends_recipes_as_a_file_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "mine.yaml", "extends: quickstart\niterations: 1\n")
    monkeypatch.chdir(tmp_path)
    recipe = recipe_of_mapping({"extends": "mine.yaml", "name": "x", "seed": 5}, "the recipe")
    assert (recipe.name, recipe.seed, recipe.iterations) == ("x", 5, 1)
    with pytest.raises(ConfigError, match="the recipe: extends: there is no recipe 'other'"):
        recipe_of_mapping({"extends": "other"}, "the recipe")


def test_fields_of_a_mapping_are_not_those_of_the_recipe_that_it_extends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "shared/base.yaml", "extends: quickstart\nprompts: {kind: file, path: seeds.jsonl}\n")
    monkeypatch.chdir(tmp_path)
    recipe = recipe_of_mapping({"extends": "shared/base.yaml", "prompts": {"path": "mine.jsonl"}}, "the recipe")
    assert recipe.model_dump()["prompts"]["path"] == str(tmp_path / "mine.jsonl")
    with pytest.raises(ConfigError, match=r"the recipe: creator\.metric: is 'reward_gab'"):
        recipe_of_mapping({"extends": "quickstart", "creator": {"metric": "reward_gab"}}, "the recipe")
