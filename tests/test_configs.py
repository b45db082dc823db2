"""Every shipped recipe and launch file, and the errors of a wrong recipe."""

import shlex
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from eva_stages.core.errors import ConfigError
from eva_stages.core.packaged_files import packaged_recipes
from eva_stages.core.recipe_files import dump_recipe, load_recipe
from tests.building import check

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.mark.parametrize("name", [recipe.name for recipe in packaged_recipes()])
def test_a_packaged_recipe_loads_and_opens_with_a_comment(name: str) -> None:
    assert load_recipe(name).name
    text = (CONFIGS / f"{name}.yaml").read_text()
    assert text.startswith("# ") and "Launch:" in text and "Override:" in text and "Needs:" in text


@pytest.mark.parametrize("name", [recipe.name for recipe in packaged_recipes()])
def test_the_overrides_in_the_header_of_a_packaged_recipe_are_valid(name: str) -> None:
    header = (CONFIGS / f"{name}.yaml").read_text().partition("\nname:")[0]
    words = shlex.split(header.partition("Override:")[2].replace("\n#", " "))
    overrides = [value.rstrip(";") for option, value in pairwise(words) if option == "--set"]
    recipe = load_recipe(name, overrides)
    if name.partition("/")[0] in ("quickstart", "controls", "lettercraft"):
        check(recipe, keys=False)


def test_every_recipe_is_packaged() -> None:
    files = {str(path.relative_to(CONFIGS).with_suffix("")) for path in CONFIGS.rglob("*.yaml")}
    packaged_names = {recipe.name for recipe in packaged_recipes()}
    assert {name for name in files if not name.startswith(("accelerate/", "cluster/", "studies/"))} == packaged_names


@pytest.mark.parametrize("path", sorted((CONFIGS / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_launch_file_sets_the_number_of_processes(path: Path) -> None:
    assert yaml.safe_load(path.read_text())["num_processes"] >= 1


def test_a_resolved_recipe_loads_as_itself(tmp_path: Path) -> None:
    recipe = load_recipe("quickstart", ["seed=7", "creator.metric=uniform"])
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(str(tmp_path / "recipe.yaml")) == recipe


@pytest.mark.parametrize(("name", "metric"), [("lettercraft/rloo", "reward_max_minus_mean"), ("quickstart", "reward_gap")])
def test_without_a_metric_the_loss_decides_and_the_resolved_recipe_names_it(name: str, metric: str) -> None:
    recipe = load_recipe(name, ["creator.metric=null"])
    assert recipe.creator.metric == metric and yaml.safe_load(dump_recipe(recipe))["creator"]["metric"] == metric


def test_all_errors_are_reported_at_once_with_their_places(tmp_path: Path) -> None:
    text = (CONFIGS / "quickstart.yaml").read_text()
    text = text.replace("metric: reward_gap", "metric: reward_gab").replace("beta: 0.1", "beta: -1").replace("seed: 42", "sead: 42")
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_recipe(str(path), ["reward.kind=micro", "iterations=many"])
    lines = text.splitlines()
    faults = "\n".join(error.value.faults)
    for field, key in (("creator.metric", "metric:"), ("solver.loss.beta", "loss:"), ("sead", "sead:")):
        number = next(index for index, line in enumerate(lines, 1) if line.strip().startswith(key))
        assert f"mine.yaml:{number}: {field}" in faults
    assert "is 'reward_gab'; known: reward_gap, " in faults and "Did you mean reward_gap?" in faults
    assert "--set reward.kind=micro: reward.kind: is 'micro'; known: lettercraft, " in faults
    assert "--set iterations=many" in faults
    assert "Did you mean seed?" in faults
    assert len(error.value.faults) == 5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- a\n- b\n", "a recipe is a mapping"),
        ("a: [1\n", "not valid YAML"),
        ("name: x\nname: y\n", "name occurs twice"),
        ("", "a recipe is a mapping"),
    ],
)
def test_a_file_that_is_not_a_recipe_is_an_error(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError, match=says):
        load_recipe(str(tmp_path / "x.yaml"))


def test_an_unknown_recipe_names_the_packaged_ones() -> None:
    with pytest.raises(ConfigError, match="quickstart"):
        load_recipe("quickstrat")


@pytest.mark.parametrize("override", ["seed", "=3", "seed.deeper=3", "evaluation.benchmarks.7.prompts=3"])
def test_a_bad_override_is_named(override: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        load_recipe("quickstart", [override])
