"""What `eva gc` deletes: nothing that a run names or a process holds, and everything else."""

import json
import shutil
from pathlib import Path

import pytest

from eva_stages.core.garbage import delete_garbage, find_garbage
from eva_stages.core.planned_stages import PLAN, write_planned_stages
from eva_stages.core.run_folder import Run
from eva_stages.core.stage import Stage
from eva_stages.core.store import WORK
from eva_stages.core.variants import keep_variant
from eva_stages.views.run_list import run_list
from tests.core.test_sharing import FIRST, SECOND, SIBLING, STORE, complete_stages, shared_run


def recipe_run(tmp_path: Path, name: str, *stages: Stage) -> Run:
    """A run with a recipe that names the stages, all of them complete."""
    run = shared_run(tmp_path, name)
    (run.root / "recipe.yaml").write_text(f"name: {name}\n")
    run.plan(stages)
    keep_variant(run, stages, f"name: {name}\n")
    return complete_stages(run, stages[-1])


def collect(folder: Path) -> list[str]:
    garbage, _ = find_garbage(folder)
    deleted_entries, skipped_paths = delete_garbage(garbage)
    assert deleted_entries == garbage and not skipped_paths
    return sorted(str(entry.path.relative_to(folder)) for entry in deleted_entries)


def test_nothing_that_a_run_or_a_variant_names_is_deleted(tmp_path: Path) -> None:
    first_run, second_run = recipe_run(tmp_path, "one", FIRST, SECOND), recipe_run(tmp_path, "other", FIRST, SIBLING)
    recipe_run(tmp_path, "one", FIRST, SIBLING)
    (tmp_path / STORE / WORK / SECOND.folder).mkdir()
    assert collect(tmp_path) == []
    assert all(run.fault(stage) is None and run.holds(stage) for run in (first_run, second_run) for stage in (FIRST, SIBLING))
    assert first_run.holds(SECOND)


def test_what_no_run_names_is_deleted_and_counted_once(tmp_path: Path) -> None:
    first_run, second_run = recipe_run(tmp_path, "one", FIRST, SECOND), recipe_run(tmp_path, "other", FIRST, SIBLING)
    for path in (first_run.root / "variants").iterdir():
        path.unlink()
    write_planned_stages(first_run.root / PLAN, [FIRST])
    shutil.rmtree(second_run.root)
    (tmp_path / STORE / WORK / "0-gone-0123456789ab").mkdir()
    (tmp_path / STORE / WORK / "0-gone-0123456789ab.lock").touch()
    (first_run.root / "damaged" / f"{FIRST.folder}.1").mkdir(parents=True)
    (first_run.root / "damaged" / f"{FIRST.folder}.1" / "text").write_text("damaged")
    garbage, _ = find_garbage(tmp_path)
    assert sum(entry.bytes for entry in garbage) == sum(
        path.stat().st_size for name in (SECOND.folder, SIBLING.folder) for path in (tmp_path / STORE / "stages" / name).rglob("*.*")
    ) + len("firstsecond" + "firstother" + "damaged")
    assert collect(tmp_path) == sorted(
        [
            f"{STORE}/stages/{SIBLING.folder}",
            f"{STORE}/stages/{SECOND.folder}",
            f"{STORE}/{WORK}/0-gone-0123456789ab",
            f"{STORE}/{WORK}/0-gone-0123456789ab.lock",
            f"one/damaged/{FIRST.folder}.1",
            f"one/stages/{SECOND.folder}",
        ]
    )
    assert first_run.fault(FIRST) is None and first_run.holds(FIRST) and collect(tmp_path) == []


def test_what_a_run_of_another_folder_uses_is_kept(tmp_path: Path) -> None:
    near_folder, far_folder = tmp_path / "here", tmp_path / "there"
    near_folder.mkdir()
    far_run = Run(far_folder / "away", near_folder / STORE)
    far_run.create()
    far_run.plan([FIRST, SECOND])
    complete_stages(far_run, FIRST)
    far_run.workplace(SECOND)
    assert collect(near_folder) == []
    shutil.rmtree(far_run.root)
    assert collect(near_folder) == [f"{STORE}/stages/{FIRST.folder}", f"{STORE}/{WORK}/{SECOND.folder}"]


def test_what_a_process_holds_is_kept(tmp_path: Path) -> None:
    first_run = recipe_run(tmp_path, "one", FIRST, SECOND)
    shutil.rmtree(first_run.root)
    garbage, _ = find_garbage(tmp_path)
    with first_run.store.lock(FIRST.folder, "for a test", None):
        deleted_entries, skipped_paths = delete_garbage(garbage)
    assert [entry.path.name for entry in deleted_entries] == [SECOND.folder]
    assert [(entry.path.name, entry.reason) for entry in skipped_paths] == [(FIRST.folder, "a process computes it")]
    two = recipe_run(tmp_path, "two", FIRST)
    (two.stages / "0-unnamed-0123456789ab").mkdir()
    with two.lock():
        garbage, skipped_paths = find_garbage(tmp_path)
    assert garbage == [] and skipped_paths[0].path == two.root and "in use by process" in skipped_paths[0].reason


def test_what_a_recipe_names_that_was_run_in_the_meantime_is_kept(tmp_path: Path) -> None:
    run = recipe_run(tmp_path, "one", FIRST, SECOND)
    shutil.rmtree(run.root / "variants")
    run.plan([FIRST])
    garbage, _ = find_garbage(tmp_path)
    run.plan([FIRST, SECOND])
    _, skipped_paths = delete_garbage(garbage)
    assert [entry.path for entry in skipped_paths] == [run.stages / SECOND.folder] and run.fault(SECOND) is None and run.holds(SECOND)


@pytest.mark.parametrize("content", [None, "[1", '[{"folder": 3}]'])
def test_a_run_whose_list_of_stages_is_missing_or_damaged_keeps_everything(tmp_path: Path, content: str | None) -> None:
    first_run = recipe_run(tmp_path, "one", FIRST, SECOND)
    (first_run.root / PLAN).unlink()
    if content is not None:
        (first_run.root / PLAN).write_text(content)
    assert collect(tmp_path) == [] and first_run.holds(SECOND)


def test_files_that_eva_did_not_create_are_kept(tmp_path: Path) -> None:
    run = recipe_run(tmp_path, "one", FIRST)
    (tmp_path / "cooking" / "damaged" / "goods").mkdir(parents=True)
    (tmp_path / "cooking" / "recipe.yaml").write_text("name: soup\n")
    files = [run.stages / "notes.txt", run.stages / f"{SECOND.folder} (copy)", run.store.stages / "README", run.store.work / ".nfs0001"]
    for file in files:
        file.touch()
    assert collect(tmp_path) == [] and all(file.exists() for file in files)


def test_the_garbage_of_one_run_leaves_what_a_run_beside_it_names(tmp_path: Path) -> None:
    run, neighbour = recipe_run(tmp_path, "one", FIRST), recipe_run(tmp_path, "two", FIRST, SECOND)
    shutil.rmtree(neighbour.stages)
    assert collect(run.root) == [] and run.store.has(SECOND.folder)


def test_unfinished_work_of_a_run_without_a_list_of_stages_is_kept(tmp_path: Path) -> None:
    run = recipe_run(tmp_path, "one", FIRST)
    run.workplace(SECOND)
    (run.root / PLAN).unlink()
    assert collect(tmp_path) == []
    shutil.rmtree(run.root)
    assert collect(tmp_path) == [f"{STORE}/stages/{FIRST.folder}", f"{STORE}/{WORK}/{SECOND.folder}"]


def test_runs_are_listed_with_variants_state_and_sizes(tmp_path: Path) -> None:
    first_run = recipe_run(tmp_path, "one", FIRST, SECOND)
    recipe_run(tmp_path, "one", FIRST, SIBLING)
    shutil.rmtree(first_run.stages / SIBLING.folder)
    recipe_run(tmp_path, "two", FIRST)
    document = run_list(tmp_path)
    first, second = document["runs"]
    assert (first["recipe"], first["complete_stages"], first["stages"]) == ("one", 1, 2) and second["complete_stages"] == 1
    assert [(variant["complete_stages"], variant["stages"]) for variant in first["variants"]] == [(2, 2)] and second["variants"] == []
    assert second["shared_bytes"] == second["bytes"] == first["shared_bytes"] < first["bytes"]
    (store,) = document["stores"]
    assert store["unused_bytes"] > 0 and store["bytes"] > first["bytes"] and json.dumps(document)
