"""The packaged studies: their headers, and that the recipe of every arm is valid and shares what it can."""

import json

import pytest
import yaml

from eva_stages.core.recipe_files import RecipeFile, load_recipe, packaged_studies
from eva_stages.core.stage import closure
from tests.building import build_rounds, check

STUDIES = packaged_studies()
WITHOUT_PACKAGES = [study_file for study_file in STUDIES if study_file.name != "reasoning"]
"""`tests/real/test_task_families.py` builds the arms of the study that needs reasoning-gym."""


def arm_settings(study: dict, arm: str) -> list[str]:
    settings = {**study.get("set", {}), **study["arms"][arm]}
    if iterations := study.get("budget", {}).get("iterations"):
        settings["iterations"] = iterations
    return [f"{name}={json.dumps(value)}" for name, value in settings.items()]


@pytest.mark.parametrize("study_file", STUDIES, ids=lambda study_file: study_file.name)
def test_a_study_opens_with_its_question_the_paper_s_result_ours_and_the_cost(study_file: RecipeFile) -> None:
    header = study_file.text.partition("\nquestion:")[0].splitlines()
    assert all(line.startswith("#") for line in header) and study_file.summary.endswith("?")
    for field in ("Paper:", "Ours:", "Compared", "Cost:", f"Launch: eva ablate {study_file.name}", "On a real base:"):
        assert [line for line in header if line.startswith(f"# {field}")], field


@pytest.mark.parametrize("study_file", WITHOUT_PACKAGES, ids=lambda study_file: study_file.name)
def test_every_arm_is_valid_and_the_arms_of_a_contrast_differ_and_share_what_they_can(study_file: RecipeFile) -> None:
    study = yaml.safe_load(study_file.text)
    stages_by_arm = {}
    for arm in study["arms"]:
        recipe = load_recipe(study["base"], arm_settings(study, arm))
        check(recipe)
        stages = closure([stage for iteration in build_rounds(recipe) for stage in iteration.stages])
        stages_by_arm[arm] = {stage.fingerprint: stage.label for stage in stages}
    for first, second in study["contrasts"]:
        shared_labels = {stages_by_arm[first][identity] for identity in stages_by_arm[first].keys() & stages_by_arm[second].keys()}
        assert stages_by_arm[first].keys() != stages_by_arm[second].keys(), "the two arms differ"
        assert "0-prompts" in shared_labels and "0-base-answer" in shared_labels
        if study_file.name not in ("rewriter", "reward_quality", "responses_per_prompt"):
            assert "0-train" in shared_labels, (first, second)
