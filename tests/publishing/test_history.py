import json
import shutil
from pathlib import Path

import pytest

from benchmarks.synthetic_run import SyntheticRun
from eva_stages.core.run_folder import Run
from eva_stages.views.history import read_history
from tests.conftest import manifests


@pytest.fixture
def two_recipes(tmp_path: Path) -> Path:
    """A run folder that also holds a mixed prompt set of another recipe, made later."""
    root = SyntheticRun(tmp_path / "made", prompts=8, responses=2, iterations=1, words=4).write()
    (mix_folder,) = (root / "stages").glob("1-mix-*")
    other_folder = mix_folder.with_name("1-mix-ffffffffffff")
    shutil.copytree(mix_folder, other_folder)
    manifest = json.loads((other_folder / "manifest.json").read_text())
    (other_folder / "manifest.json").write_text(json.dumps({**manifest, "ended": "2025-01-01T00:00:00+00:00"}))  # the clock was put back
    for folder in (mix_folder, other_folder):
        Run(root).event("done", stage="1-mix", fingerprint=folder.name.rpartition("-")[2])
    return root


def test_artifacts_of_another_recipe_in_the_folder_are_left_out(two_recipes: Path) -> None:
    mix_folder = read_history(Run(two_recipes)).find("mix", 1)
    assert mix_folder is not None
    assert mix_folder.folder.name != "1-mix-ffffffffffff"


def test_without_a_plan_the_artifacts_count_that_were_committed_last(two_recipes: Path) -> None:
    (two_recipes / "stages.json").unlink()
    mix_folder = read_history(Run(two_recipes)).find("mix", 1)
    assert mix_folder is not None
    assert mix_folder.folder.name == "1-mix-ffffffffffff"


def test_a_run_writes_down_its_stages_upstream_first(tiny_run: Path) -> None:
    history = read_history(Run(tiny_run))
    assert {f"{artifact.iteration}-{artifact.stage}" for artifact in history.artifacts} == set(manifests(tiny_run))
    places = {artifact.folder.name: index for index, artifact in enumerate(history.artifacts)}
    for entry in history.artifacts:
        assert all(
            places[input_entry["artifact"]] < places[entry.folder.name]
            for input_entry in entry.manifest["inputs"].values()
            if input_entry["artifact"] in places
        )
    assert {number: prompt_set.stage for number, prompt_set in history.prompt_sets.items()} == {0: "prompts", 1: "mix"}
