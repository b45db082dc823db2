"""What a shell completes, and that it imports nothing that takes long."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from cli.completion import (
    STAGES,
    complete_benchmarks,
    complete_field,
    complete_packaged,
    complete_recipe,
    complete_run,
    complete_stage,
    join_words,
)
from cli.main import app
from eva_stages.core.kinds import KINDS
from eva_stages.core.recipe_files import load_recipe
from tests.conftest import run_eva

ROOT = Path(__file__).parents[2]


def completions(words: str, index: int, folder: Path) -> list[str]:
    """What bash gets for words that it has split, separated by spaces here."""
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "sys.argv = ['eva']\n"
        "from cli.main import main\n"
        "try: main()\n"
        "finally: assert not {'pydantic', 'yaml', 'rich', 'torch'} & set(sys.modules), sys.modules.keys()\n"
    )
    environment = {"_EVA_COMPLETE": "complete_bash", "COMP_WORDS": words.replace(" ", "\n"), "COMP_CWORD": str(index)}
    process = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=True)
    assert process.stderr == ""
    return process.stdout.split()


def test_bash_gets_values_of_a_field_and_nothing_slow_is_imported(tmp_path: Path) -> None:
    assert "reward_variance" in completions("eva run --set seed = 7 --set creator.metric = reward_v", 9, tmp_path)
    assert completions("eva run --iterations 2 quick", 4, tmp_path) == ["quickstart"]


@pytest.mark.parametrize(
    ("words", "index", "joined_text"),
    [
        ("eva run --set a.b = c", 5, ("eva|run|--set|a.b=c", 3, "a.b=")),
        ("eva run --set a.b =", 4, ("eva|run|--set|a.b=", 3, "a.b=")),
        ("eva run --set a.b = c ", 6, ("eva|run|--set|a.b=c|", 4, "")),
        ("eva run --set a = f.py : g quick", 8, ("eva|run|--set|a=f.py:g|quick", 4, "")),
        ("eva run --set = a.b = c", 6, ("eva|run|--set=a.b=c", 2, "a.b=")),
        ("eva ru", 1, ("eva|ru", 1, "")),
    ],
)
def test_words_that_bash_splits_are_joined(words: str, index: int, joined_text: tuple[str, int, str]) -> None:
    joined_words, position, prefix = join_words(words.split(" "), index)
    assert ("|".join(joined_words), position, prefix) == joined_text


@pytest.mark.parametrize(
    ("incomplete", "expected"),
    [
        ("cre", {"creator.metric=", "creator.evolve.", "creator.training."}),
        ("solver.training.runtime.m", {"solver.training.runtime.micro_batch_size=8"}),
        ("creator.metri", {"creator.metric=uniform"}),
        ("creator.control=", {"creator.control=longer", "creator.control=null"}),
        ("trust", {"trust_code=true", "trust_code=false"}),
        ("solver.loss.kind=", {"solver.loss.kind=dpo", "solver.loss.kind=hinge"}),
        ("evaluation.bench", {"evaluation.benchmarks.0.kind=", "evaluation.benchmarks.0.judge."}),
        ("see", {"seed=42"}),
        ("nothing.at.all", set()),
        ("seed.deeper.", set()),
    ],
)
def test_fields_are_completed_level_by_level(incomplete: str, expected: set[str]) -> None:
    fields = complete_field(incomplete)
    assert expected <= set(fields) and (expected or not fields)
    assert all(field.startswith(incomplete) for field in fields)


def test_every_completed_value_is_one_that_the_recipe_takes() -> None:
    for field in ("creator.metric", "creator.selection.kind", "creator.control", "solver.training.optimizer"):
        for assignment in complete_field(f"{field}="):
            load_recipe("quickstart", [assignment])


def test_recipes_runs_and_stages_are_those_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine.yaml", "runs/mine-run/recipe.yaml", "runs/metrics/study.json", "runs/metrics/eva/42/recipe.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("name: mine-run\n")
    (tmp_path / "runs/mine-run/stages.json").write_text(json.dumps([{"folder": "0-train-ab12"}, {"folder": "1-gate-verdicts-cd34"}]))
    assert {"quickstart", "mine.yaml"} <= set(complete_recipe()) and {"quickstart", "metrics"} <= set(complete_packaged())
    assert complete_run("") == ["metrics", "mine-run"] and complete_run("metrics/") == ["metrics/eva/42"]
    context = typer.Context(get_command(app), obj=None)
    for recipe, run_dir in (("mine.yaml", None), ("quickstart", "runs/mine-run")):
        context.params = {"recipe": recipe, "run_dir": run_dir}
        assert complete_stage(context, "") == ["train", "gate-verdicts"] and complete_stage(context, "1") == ["0-train", "1-gate-verdicts"]
    context.params = {"recipe": "lettercraft/deep", "run_dir": None}
    assert complete_stage(context, "") == list(STAGES) and set(STAGES) <= set(KINDS)


def test_an_error_completes_nothing_and_prints_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"\xff")
    (tmp_path / "runs").write_text("no folder")
    assert completions("eva status q", 2, tmp_path) == [] and "evolve" in completions("eva run mine.yaml --until e", 4, tmp_path)
    assert completions("eva unknown --option x", 3, tmp_path) == []


def test_benchmarks_are_completed_after_a_comma() -> None:
    assert "mt-bench,ifeval" in complete_benchmarks("mt-bench,i") and "mt-bench,mt-bench" not in complete_benchmarks("mt-bench,")


def test_version_and_short_help_are_there_everywhere() -> None:
    assert run_eva("--version").stdout.startswith("eva 0.")
    for words in ([], ["run"], ["recipes", "show"], ["eval", "score"]):
        assert "Usage: " in run_eva(*words, "-h").stdout
