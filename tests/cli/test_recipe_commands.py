"""`eva recipes show`, `copy` and `diff`, and `eva validate` of recipes that extend others."""

import json
from pathlib import Path

import yaml

from eva_stages.core.recipe_files import load_recipe
from tests.conftest import run_eva


def test_a_recipe_that_extends_another_is_shown_with_what_results_and_can_be_saved(tmp_path: Path) -> None:
    text = run_eva("recipes", "show", "lettercraft/gated").stdout
    assert "# Merged with lettercraft/deep, which it extends." in text and "extends" not in yaml.safe_load(text)
    (tmp_path / "mine.yaml").write_text(text)
    assert load_recipe(str(tmp_path / "mine.yaml")) == load_recipe("lettercraft/gated")
    assert run_eva("recipes", "show", "quickstart").stdout.count("#") > 6  # the text itself, with its comments


def test_paths_from_another_folder_are_shown_so_that_they_mean_the_same(tmp_path: Path) -> None:
    for name in ("shared", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "seeds.jsonl").write_text("")
    (tmp_path / "shared/base.yaml").write_text(
        "extends: quickstart\nprompts: {kind: file, path: seeds.jsonl}\n"
        "creator: {curate: {decontaminate: {against: [seeds.jsonl, mt-bench]}}}\n"
    )
    (tmp_path / "mine/mine.yaml").write_text("extends: ../shared/base.yaml\ncreator: {metric: 'own.py:metric'}\n")
    text = run_eva("recipes", "show", str(tmp_path / "mine/mine.yaml")).stdout
    (tmp_path / "mine/shown.yaml").write_text(text)
    assert load_recipe(str(tmp_path / "mine/shown.yaml")) == load_recipe(str(tmp_path / "mine/mine.yaml"))
    assert f"{tmp_path}/shared/seeds.jsonl" in text and "metric: own.py:metric" in text and "mt-bench" in text


def test_a_copy_extends_the_same_recipe_and_is_valid(tmp_path: Path) -> None:
    run_eva("recipes", "copy", "lettercraft/orpo", str(tmp_path / "mine.yaml"))
    assert "extends: quickstart" in (tmp_path / "mine.yaml").read_text()
    assert load_recipe(str(tmp_path / "mine.yaml")) == load_recipe("lettercraft/orpo")


def test_validate_names_the_file_of_an_error_in_a_recipe_that_is_extended(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("extends: quickstart\nseed: none\n")
    (tmp_path / "mine.yaml").write_text("extends: base.yaml\niterations: many\n")
    faults = json.loads(run_eva("validate", str(tmp_path / "mine.yaml"), "--json", code=2).stdout)["faults"]
    assert [fault.partition(": is ")[0] for fault in faults] == [
        f"{tmp_path}/base.yaml:2: seed",
        f"{tmp_path}/mine.yaml:2: iterations",
    ]


def test_diff_lists_the_fields_that_differ_with_both_values(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: quickstart\nsolver: {loss: {kind: ipo}}\nhealth: {answers: 8}\npublish: {to: me}\n")
    arguments = ("recipes", "diff", "quickstart", str(tmp_path / "mine.yaml"))
    document = json.loads(run_eva(*arguments, "--json").stdout)
    differences = {entry.pop("field"): entry for entry in document["differences"]}
    assert differences == {
        "name": {"a": "quickstart", "b": "mine"},
        "solver.loss.nll_alpha": {"a": 1.0, "b": 0.0},
        "solver.loss.kind": {"a": "dpo", "b": "ipo"},
        "solver.loss.length_normalized": {"a": False},
        "health.answers": {"a": 256, "b": 8},
        "publish.to": {"b": "me"},
        "publish.private": {"b": False},
    }
    table = run_eva(*arguments).stdout
    assert "7 fields differ" in table and any(line.split() == ["publish.to", "-", "me"] for line in table.splitlines())
    assert run_eva("recipes", "diff", "quickstart", "quickstart").stdout == "quickstart and quickstart are the same recipe\n"
    assert "there is no recipe 'quikstart'" in run_eva("recipes", "diff", "quickstart", "quikstart", code=2).stderr


def test_diff_prints_no_password(tmp_path: Path) -> None:
    generator = "{kind: litellm, model: openai/x, api_base: 'http://me:hunter2hunter2@localhost:8000/v1'}"
    (tmp_path / "mine.yaml").write_text(f"extends: quickstart\ncreator: {{evolve: {{generator: {generator}}}}}\n")
    for option in ((), ("--json",)):
        output = run_eva("recipes", "diff", "quickstart", str(tmp_path / "mine.yaml"), *option).stdout
        assert "hunter2" not in output and "http://[removed]@localhost" in output
