"""The scripts in benchmarks/: each starts, and what they name of eva exists. Their figures are measured by hand."""

import importlib
import re
import sys
from pathlib import Path

import pytest

from benchmarks import data_path, mixing
from benchmarks.sides import measure
from eva_stages.core.stage import closure, load_attribute, uses

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


def test_the_steps_of_the_data_path_exist(tmp_path: Path) -> None:
    for name in ("prompts.jsonl", "questions.jsonl"):
        (tmp_path / name).touch()
    targets = {use.target for stage in closure(data_path.stages(tmp_path)) for use in uses(stage)}
    assert len(targets) == 11 and all(map(load_attribute, targets))


def test_a_side_prints_its_figures(tmp_path: Path) -> None:
    for name, tables in (("prompts", 0), ("evolved", 1)):
        mixing.large.write(mixing.large.prompt_tables(50, seed=tables, near=0.0), "prompts", tmp_path / name)
    mixing.large.write(mixing.large.reward_tables(50), "rewards", tmp_path / "rewards")
    for side in ("inform", "select", "mix"):
        assert measure("benchmarks.mixing", side, ["--folder", str(tmp_path)])["seconds"] > 0
