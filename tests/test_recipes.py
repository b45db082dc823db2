"""The recipes for real models, with tiny models in their place by `--set`: all are checked and planned, some are run completely."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.rewards_config import ArmoRMReward, PairPreferenceReward, PairRMReward
from eva_stages.core.packaged_files import packaged_recipes
from eva_stages.core.recipe_files import load_recipe
from eva_stages.core.run_folder import Run
from tests.building import check, plan_of
from tests.conftest import manifests, overrides, run_eva
from tests.tiny_models import save_armorm, save_gemma2, save_pairrm, save_policy, save_reward, tokenizer

TEXTS = [f"Tell me something new about the number {number} and the colour of the {number % 5} seas" for number in range(16)]
WORLD = ("quickstart", "controls/", "lettercraft/")
"""Recipes for Lettercraft, which need no other models."""
OFFLINE = "smollm2-135m/offline"
"""A recipe with all of its files except the policy beside it."""
REASONING = "smollm2-135m/reasoning"
"""A recipe that needs reasoning-gym; `tests/real` runs it."""
OTHER_RECIPES = (*WORLD, OFFLINE, REASONING)
NAMES = [recipe.name for recipe in packaged_recipes() if "/" in recipe.name and not recipe.name.startswith(OTHER_RECIPES)]
WHOLE = ["gemma-2-9b-it/dpo", "gemma-2-9b-it/sppo_pairrm", "smollm2-135m/dpo"]
"""Recipes that are run; the others differ from them by a model's name or a loss, and every loss has its own tests."""
SMALL: dict[str, Any] = {
    "prompts.size": 12,
    "iterations": 1,
    "policy.generator.kind": "transformers",
    "policy.generator.max_new_tokens": 8,
    "creator.responses": 2,
    "creator.evolve.generations": 2,
    "creator.evolve.generator.max_new_tokens": 48,
    "creator.evolve.generator.stop": ["e", "a", "."],  # random weights rarely sample their end token
    "creator.evolve.generator.temperature": 1.0,
    "limits.empty": 1.0,
    "health.answers": 0,
    "solver.responses": 2,
    "solver.training.batch_size": 4,
    "solver.training.epochs": 1,
    "solver.training.dtype": "float32",
    "solver.training.runtime.micro_batch_size": 4,
    "solver.training.runtime.launch": "cpu",
    "reward.runtime.device": "cpu",
}
SMALL_ONLINE = {name: value for name, value in SMALL.items() if name != "solver.training.epochs"} | {"creator.selection.fraction": 0.5}


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stand-ins")
    words = tokenizer(TEXTS)
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in TEXTS))
    save_gemma2(folder / "gemma-2-9b-it", words)
    for name in ("llama-3.1-8b-instruct", "smollm2-135m"):
        save_policy(folder / name, words)
    save_armorm(folder / "armorm", words)
    save_reward(folder / "classifier", words)
    save_pairrm(folder / "pairrm", words)
    return folder


def settings(name: str, folder: Path) -> dict[str, Any]:
    """The overrides that put the tiny models into a recipe."""
    recipe = load_recipe(name)
    match recipe.reward:
        case ArmoRMReward():
            reward = "armorm"
        case PairRMReward():
            reward = "pairrm"
        case PairPreferenceReward():
            reward = "smollm2-135m"
        case _:
            reward = "classifier"
    models = {"policy.model": folder / name.partition("/")[0], "reward.model": folder / reward, "prompts.path": folder / "prompts.jsonl"}
    small = SMALL if recipe.mode == "offline" else SMALL_ONLINE
    return small | {place: str(path) for place, path in models.items()}


def small_recipe(name: str, folder: Path) -> Recipe:
    return load_recipe(name, [f"{place}={json.dumps(value)}" for place, value in settings(name, folder).items()])


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_valid_and_can_be_planned(name: str, stand_ins: Path, tmp_path: Path) -> None:
    recipe = small_recipe(name, stand_ins)
    check(recipe)
    stages = {entry["stage"] for entry in plan_of(recipe, Run(tmp_path))["stages"]}
    assert {"0-train", "1-evolve", "1-train"} <= stages


@pytest.mark.parametrize("name", [recipe.name for recipe in packaged_recipes() if recipe.name.startswith(WORLD)])
def test_a_lettercraft_recipe_is_valid_and_can_be_planned(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    check(recipe)
    stages = {entry["stage"] for entry in plan_of(recipe, Run(tmp_path))["stages"]}
    assert {"0-train", "1-train", "2-train", "2-eval-score"} <= stages


@pytest.mark.parametrize("name", WHOLE)
def test_a_recipe_runs_completely_with_tiny_models(name: str, stand_ins: Path, tmp_path: Path) -> None:
    plan_entries = plan_of(small_recipe(name, stand_ins), Run(tmp_path / "run"))["stages"]
    run_eva("run", name, "--run-dir", str(tmp_path / "run"), *overrides(settings(name, stand_ins)))
    stage_manifests = manifests(tmp_path / "run")
    assert set(stage_manifests) == {entry["stage"] for entry in plan_entries}
    assert stage_manifests["1-mix"]["rows"] == 12 and stage_manifests["1-train"]["counts"]["steps"] > 0
    assert stage_manifests["1-reward"]["counts"]["responses"] == 24 and not stage_manifests["1-reward"]["counts"].get("unscored")


def test_a_recipe_is_copied_with_its_files_and_is_valid(stand_ins: Path, tmp_path: Path) -> None:
    mine = str(tmp_path / "mine.yaml")
    run_eva("recipes", "copy", OFFLINE, mine)
    has_vader = find_spec("vaderSentiment") is not None  # the reward function's package, of the extra `real`
    policy = overrides({"policy.model": str(stand_ins / "smollm2-135m")})
    validation = run_eva("validate", mine, "--trust", *policy, cwd=stand_ins, code=0 if has_vader else 2)
    assert has_vader or ("reward.function" in validation.stderr and "No module named 'vaderSentiment'" in validation.stderr)
    (tmp_path / "mine.yaml").unlink()
    assert f"{tmp_path / 'offline'} exists" in run_eva("recipes", "copy", OFFLINE, mine, code=2).stderr


def test_a_recipe_with_tasks_is_valid_or_says_what_to_install(stand_ins: Path) -> None:
    policy = overrides({"policy.model": str(stand_ins / "smollm2-135m")})
    has_tasks = find_spec("reasoning_gym") is not None  # of the extra `reasoning`
    validation = run_eva("validate", REASONING, *policy, code=0 if has_tasks else 2)
    for place in ("prompts", "reward", "creator.evolve.generator", "evaluation.benchmarks.0"):
        fault = f"{place}: reasoning_gym needs the package reasoning-gym, which is not installed: pip install 'eva-align[reasoning]'"
        assert has_tasks or fault in validation.stderr
