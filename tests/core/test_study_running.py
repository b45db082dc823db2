"""A study that is started again: after an edit, with a damaged record, after some of its iterations; and the share of each job."""

import datetime
import os
from pathlib import Path

import pytest

from eva_stages.api.job_shares import job_environments
from eva_stages.api.study_preparing import PreparedStudy, prepare_study
from eva_stages.api.study_running import RunOfStudy, write_record
from eva_stages.core.devices import present_devices
from eva_stages.core.errors import ConfigError
from eva_stages.core.recipe_files import load_recipe
from eva_stages.core.stage import closure
from eva_stages.core.study_files import load_study
from eva_stages.core.study_record import STUDY_FILE, read_study
from eva_stages.views.study_status import study_status
from pipelines.ablation import ArmRun
from tests.conftest import run_eva

STUDY = """\
question: Does it help?
base: quickstart
seeds: 1
budget: {generated_tokens: 250}
arms:
  eva: {}
  uniform: {creator.metric: uniform}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "test.yaml").write_text(STUDY)
    (tmp_path / "study").mkdir()
    return tmp_path / "study"


def prepare(folder: Path, **changes: object) -> PreparedStudy:
    return prepare_study(load_study(str(folder.parent / "test.yaml"), changes), folder)


def started_run(arm_run: ArmRun, folder: Path, tokens: float) -> RunOfStudy:
    run = RunOfStudy(arm_run, folder / arm_run.label, folder / ".store", tokens)
    run.begin()
    return run


def plant_round(run: RunOfStudy, arm_run: ArmRun, iteration: int) -> None:
    """Commit the stages of a round; each generated 100 tokens."""
    for stage in closure([stage for planned_round in arm_run.rounds(iteration) for stage in planned_round.stages]):
        if not run.run.holds(stage):
            artifact = run.run.workplace(stage) / "data"
            artifact.mkdir()
            (artifact / "rows.txt").write_text(stage.label)
            facts = {"rows": 1, "failures": {}, "counts": {"output_tokens": 100}, "seconds": 1.0, "pace": None, "bytes": 9, "notices": []}
            run.run.commit(stage, artifact, {**facts, "devices": {"count": 0, "names": []}, "started": "2026-01-01T00:00:00+00:00"})


def test_a_run_that_has_iterations_plans_them_from_the_beginning(folder: Path) -> None:
    arm_run = prepare(folder).runs[0]
    run = started_run(arm_run, folder, 250)
    assert max(stage.iteration for stage in run.run.planned_stages()) == 0
    plant_round(run, arm_run, 1)
    run.end()
    planned_iterations = []
    for tokens in (50, 250, 1e6):
        run = started_run(arm_run, folder, tokens)
        run.end()
        planned_iterations.append(max(stage.iteration for stage in run.run.planned_stages()))
        assert run.stages[0].iteration == 0, "every artifact is verified"
    assert planned_iterations == [0, 1, 2]


def test_a_damaged_record_is_written_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = prepare(folder).record
    write_record(folder, record)
    earlier_day = datetime.date(2026, 1, 2)
    write_record(folder, record.model_copy(update={"date": earlier_day}))
    assert prepare(folder).record.date == earlier_day
    (folder / STUDY_FILE).write_text("{")
    write_record(folder, prepare(folder).record)
    assert read_study(folder) == record
    assert "study.json is damaged" in capsys.readouterr().err


def test_a_changed_arm_or_base_is_reported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = prepare(folder).record
    write_record(folder, record)
    write_record(folder, record.model_copy(update={"base": "lettercraft/deep", "arms": {"eva": {}, "other": {}}}))
    message = capsys.readouterr().err
    assert (
        "or were removed: uniform; their artifacts remain" in message and "the base was quickstart and is now lettercraft/deep" in message
    )


def test_a_run_that_a_limit_stopped_has_failed(folder: Path) -> None:
    prepared_study = prepare(folder)
    write_record(folder, prepared_study.record)
    run = started_run(prepared_study.runs[0], folder, 250)
    stage = run.stages[-1]
    run.run.event("stopped", stage=stage.label, fingerprint=stage.fingerprint, cause="heat is 90")
    run.end()
    entry = study_status(folder)["runs"][0]
    assert (entry["state"], entry["cause"]) == ("failed", f"{stage.label}: heat is 90")


def test_each_job_has_its_own_gpus_and_no_fewer_than_a_training_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = [f"GPU-of-{tmp_path.name}-{index}" for index in range(4)]
    listing = "\n".join(f"{index}, {gpu}, H100" for index, gpu in enumerate(gpus))
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\necho '{listing}'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(gpus))
    launch = tmp_path / "two.yaml"
    launch.write_text("distributed_type: MULTI_GPU\nnum_processes: 2\n")
    single, double = (load_recipe("quickstart", [f"solver.training.runtime.launch={name}"]) for name in ("single_gpu", launch))
    own_gpus = [environment["CUDA_VISIBLE_DEVICES"] for environment in job_environments(None, [single, double])]
    assert own_gpus == [",".join(gpus[:2]), ",".join(gpus[2:])]
    assert len(job_environments(None, [single])) == 4 and len(job_environments(8, [single])) == 8
    with pytest.raises(ConfigError, match="--jobs: is 3; a training needs 2 GPUs and 4 are visible, so give at most 2"):
        job_environments(3, [double])


@pytest.mark.skipif(bool(present_devices().ids), reason="this machine has GPUs")
def test_a_study_needs_the_gpus_of_its_launch_files_before_anything_runs(tmp_path: Path) -> None:
    arms = ("--vary", "creator.metric=reward_gap,uniform", "--seeds", "2", "--set", "solver.training.runtime.launch=ddp")
    result = run_eva("ablate", "quickstart", *arms, "--study-dir", str(tmp_path / "study"), code=2)
    assert result.stderr.count("solver.training.runtime.launch: ddp needs 8 GPUs; this machine has none") == 1
    assert not [path for path in (tmp_path / "study").iterdir() if path.is_dir()]
