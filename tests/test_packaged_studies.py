"""The packaged studies: their headers, and that every arm is valid and shares what it can."""

import argparse
import json
import re
import shlex
from pathlib import Path

import pytest

from eva_stages.api.study_preparing import prepare_study, read_request
from eva_stages.checking.study_checks import measure_of
from eva_stages.core.packaged_files import PackagedFile, packaged_recipes, packaged_studies
from eva_stages.core.stage import closure
from eva_stages.core.study_files import load_study
from tests.conftest import run_eva

STUDIES = packaged_studies()
WITHOUT_PACKAGES = [study_file for study_file in STUDIES if study_file.name != "reasoning"]
"""`tests/real/test_task_families.py` builds the arms of the study that needs reasoning-gym."""
PORTABLE = [study_file for study_file in STUDIES if study_file.name not in ("reasoning", "world") and "/" not in study_file.name]
OTHER_PROMPTS = ("prompts_6x",)
"""Arms with other seed prompts than the others."""
OTHER_MODE = ("offline",)
"""Arms of another mode than the others."""
OTHER_BASE_ROUND = ("rewriter", "reward_quality", "responses_per_prompt")
"""Studies of settings that the base round has too."""


def header(study_file: PackagedFile) -> str:
    return re.match(r"(?:#.*\n)+", study_file.text)[0]


def real_base_command(study_file: PackagedFile) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("study")
    parser.add_argument("--vary", action="append", default=[])
    parser.add_argument("--set", action="append", default=[])
    for option in ("--base", "--measure", "--seeds"):
        parser.add_argument(option)
    text = header(study_file).partition("# On a real base")[2].replace("\n#", " ")
    command = re.search(r"eva ablate (.*) \(about \d+ H100-hours by estimate\)", text)
    assert command, text
    return parser.parse_args(shlex.split(command[1]))


@pytest.mark.parametrize("study_file", STUDIES, ids=lambda study_file: study_file.name)
def test_a_study_opens_with_its_question_the_paper_s_result_ours_and_the_cost(study_file: PackagedFile) -> None:
    lines = header(study_file).splitlines()
    assert study_file.summary.endswith("?") and max(map(len, lines)) <= 140
    for field in ("Paper:", "Ours:", "Compared", "Cost:", f"Launch: eva ablate {study_file.name}", "On a real base"):
        assert [line for line in lines if line.startswith(f"# {field}")], field


@pytest.mark.parametrize("study_file", WITHOUT_PACKAGES, ids=lambda study_file: study_file.name)
def test_every_arm_is_valid_and_the_arms_of_a_contrast_share_what_they_can(study_file: PackagedFile, tmp_path: Path) -> None:
    study = prepare_study(load_study(study_file.name, {"seeds": 1}), tmp_path)
    labels_by_arm = {}
    for run in study.runs:
        stages = closure([stage for iteration in run.rounds(1) for stage in iteration.stages])
        labels_by_arm[run.arm] = {stage.fingerprint: stage.label for stage in stages}
    for first, second in study.record.contrasts:
        shared_labels = {labels_by_arm[first][identity] for identity in labels_by_arm[first].keys() & labels_by_arm[second].keys()}
        assert shared_labels >= {"0-base-answer"} and ("0-prompts" in shared_labels or second in OTHER_PROMPTS)
        assert "0-train" in shared_labels or study_file.name in OTHER_BASE_ROUND or second in (*OTHER_PROMPTS, *OTHER_MODE), (first, second)


@pytest.mark.parametrize("study_file", PORTABLE, ids=lambda study_file: study_file.name)
def test_the_command_for_a_real_base_is_valid(study_file: PackagedFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{study_file.name}.yaml").write_text(study_file.text)
    monkeypatch.chdir(tmp_path)
    command = real_base_command(study_file)
    study = read_request(command.study, command.vary, command.set, command.base, command.measure, command.seeds)
    faults: list[str] = []
    assert measure_of(study.study, study.recipes, faults) == command.measure and not faults


def test_studies_are_listed_beside_the_recipes_and_can_be_copied(tmp_path: Path) -> None:
    listing = json.loads(run_eva("recipes", "ls", "--json").stdout)
    names = {kind: {entry["name"] for entry in listing[kind]} for kind in ("recipes", "studies")}
    assert names["studies"] == {study.name for study in STUDIES} and names["recipes"] == {recipe.name for recipe in packaged_recipes()}
    assert not names["recipes"] & names["studies"]
    run_eva("recipes", "copy", "metrics", str(tmp_path / "mine.yaml"))
    assert load_study(str(tmp_path / "mine.yaml"), {}).study.arms == load_study("metrics", {}).study.arms
