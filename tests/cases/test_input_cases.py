"""Outside files that change during a run: the stage that read them commits no artifact."""

from pathlib import Path

import pytest

from eva_stages.core.errors import StageError
from eva_stages.core.fingerprint import file_digest, tree_digest
from eva_stages.core.outside import changed_file
from eva_stages.core.progress import Reporter
from eva_stages.core.run_folder import Run
from eva_stages.core.runner import Context, execute
from eva_stages.core.stage import FunctionStage, Outside, Use
from eva_stages.models.loading import find_checkpoint
from tests.cases.models import (
    copy_damaged,
)


def test_pythons_caches_in_a_folder_of_task_files_do_not_count_as_a_change(tmp_path: Path) -> None:
    (tmp_path / "utils.py").write_text("x = 1\n")
    tasks = Outside("tasks", tmp_path, tree_digest(tmp_path))
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "utils.pyc").write_bytes(b"x")
    assert changed_file(tasks, tasks.stamps) is None and tree_digest(tmp_path) == tasks.digest


def spoil(context: Context, when: str) -> dict:
    """A stage that rewrites its input permanently, or restores it before it ends."""
    path = context.inputs["policy"]
    path = path / "config.json" if path.is_dir() else path
    content = path.read_bytes()
    path.write_bytes(content + b" ")
    if when == "restored":
        path.write_bytes(content)
    context.artifact.mkdir()
    (context.artifact / "text").write_text("made")
    return {}


def keep(context: Context) -> dict:
    context.artifact.mkdir()
    (context.artifact / "text").write_text("made")
    return {}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    new_run = Run(tmp_path / "run")
    new_run.create()
    return new_run


@pytest.mark.parametrize("when", ["for good", "restored"])
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_stage_whose_input_changes_while_it_runs_leaves_no_artifact(
    whole_models: Path, tmp_path: Path, run: Run, when: str, kind: str
) -> None:
    folder = copy_damaged(whole_models / "policy", tmp_path / "policy", lambda folder: None)
    file = folder / "config.json"
    policy = find_checkpoint(str(folder), None, "policy.model") if kind == "folder" else Outside(file.name, file, file_digest(file))
    stage = FunctionStage("spoil", 0, {"policy": policy}, function=Use(f"{__name__}:spoil", {"when": when}))
    with pytest.raises(StageError, match=r"config.json was changed while the stage ran"):
        execute(run, [stage], Reporter())
    assert not run.is_complete(stage) and not (run.work / stage.folder).exists()


def test_a_stage_does_not_start_if_an_input_changed_since_the_run_started(whole_models: Path, tmp_path: Path, run: Run) -> None:
    folder = copy_damaged(whole_models / "policy", tmp_path / "policy", lambda folder: None)
    stage = FunctionStage("keep", 0, {"policy": find_checkpoint(str(folder), None, "policy.model")}, function=Use(f"{__name__}:keep"))
    content = (folder / "config.json").read_bytes()
    (folder / "config.json").write_bytes(content + b" ")
    with pytest.raises(StageError, match=r"config.json was changed since the run started"):
        execute(run, [stage], Reporter())
    (folder / "config.json").write_bytes(content)  # the input is restored, so it matches what the manifest will record
    execute(run, [stage], Reporter())
    assert run.manifest(stage)["inputs"]["policy"]["digest"] == tree_digest(folder)
