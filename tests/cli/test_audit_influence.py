"""`eva audit RUN --influence N` on a real run: computed once, saved beside the stages, shown by later audits."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from tests.conftest import run_eva


@pytest.fixture
def run_copy(tiny_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "tiny", symlinks=True))


def test_it_is_computed_once_and_shown_afterwards(run_copy: Path):
    first = run_eva("audit", str(run_copy), "--influence", "20", "--json")
    assert "influence: done" in first.stderr
    (path,) = (run_copy / "influence").glob("1-train-*.parquet")
    table = pq.read_table(path)
    facts = json.loads(table.schema.metadata[b"eva"])
    assert 0 < len(table) <= 20
    assert facts["held_out_pairs"] >= 10
    assert not list((run_copy / "influence").glob("work-*"))
    document = json.loads(first.stdout)
    assert any(note.startswith(f"Influence: one gradient step on each of {len(table)} prompts' pairs") for note in document["notes"])
    second_audit = run_eva("audit", str(run_copy), "--influence", "20", "--json")
    assert second_audit.stderr == ""
    assert json.loads(second_audit.stdout) == document
    assert "influence: done" in run_eva("audit", str(run_copy), "--influence", "21", "--json").stderr


def test_a_recipe_that_trains_otherwise_is_refused(run_copy: Path):
    recipe = yaml.safe_load((run_copy / "recipe.yaml").read_text())
    recipe["solver"]["loss"]["beta"] = 0.7
    (run_copy / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    error = run_eva("audit", str(run_copy), "--influence", "20", code=2).stderr
    assert "describes another train than the run has" in error
