"""The scripts in benchmarks/: each starts, and what they name of eva exists. Their figures are measured by hand."""

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import data_path, mixing, study_chaos
from benchmarks.sides import measure
from eva_stages.core.stage import closure, load_attribute, uses
from eva_stages.core.study_record import read_study, write_study
from eva_stages.publishing.study_results import write_results
from tests.study_folder import plant_study, planted_curves

SCRIPTS = [path for path in sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py")) if "__main__" in path.read_text()]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_benchmark_starts_and_names_code_that_exists(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [script.stem, "--help"])
    with pytest.raises(SystemExit) as exit_info:
        importlib.import_module(f"benchmarks.{script.stem}").main()
    assert exit_info.value.code == 0 and "usage:" in capsys.readouterr().out
    for target in re.findall(r'"((?:eva_stages|benchmarks)[\w.]*:\w+)"', script.read_text()):
        load_attribute(target)


def test_the_results_of_two_studies_differ_in_every_file_that_shows_a_score_and_not_by_their_place(tmp_path: Path) -> None:
    curves = planted_curves({"a": 0.1, "b": 0.0}, 2, np.random.default_rng(0))
    folders = [plant_study(tmp_path / place / "small", curves) for place in ("one", "other")]
    for folder in folders:
        write_results(folder)
    record = read_study(folders[1])
    write_study(folders[1], record.model_copy(update={"command": "eva ablate small.yaml --study-dir elsewhere"}))
    write_results(folders[1])
    first, second = map(study_chaos.results, folders)
    assert first == second and {"results.json", "results.csv", "report.html"} < set(first)
    assert "elsewhere" in (folders[1] / "report.html").read_text()
    curves["b"][1] = [score + 0.01 for score in curves["b"][1]]
    third = plant_study(tmp_path / "third" / "small", curves)
    write_results(third)
    assert {name for name, text in study_chaos.results(third).items() if text != first[name]} == set(first)


def test_the_steps_of_the_data_path_exist(tmp_path: Path) -> None:
    for name in ("prompts.jsonl", "questions.jsonl"):
        (tmp_path / name).touch()
    targets = {use.target for stage in closure(data_path.stages(tmp_path)) for use in uses(stage)}
    assert len(targets) == 17 and all(map(load_attribute, targets))


def test_a_side_prints_its_figures(tmp_path: Path) -> None:
    for name, tables in (("prompts", 0), ("evolved", 1)):
        mixing.large.write(mixing.large.prompt_tables(50, seed=tables, near=0.0), "prompts", tmp_path / name)
    mixing.large.write(mixing.large.reward_tables(50), "rewards", tmp_path / "rewards")
    for side in ("inform", "select", "mix"):
        assert measure("benchmarks.mixing", side, ["--folder", str(tmp_path)])["seconds"] > 0
