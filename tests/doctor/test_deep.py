"""`eva doctor --deep`: cheap checks on the CPU, how checks fail, and every check where there is a GPU."""

import shutil
import signal
from pathlib import Path

import pytest
from rich.console import Console

from eva_stages.core.errors import ConfigError
from eva_stages.core.text_table import as_rich
from eva_stages.doctor.deep import check_all, deep_table
from eva_stages.doctor.deep_checks import CHECKS, Bench, Check, Figures
from eva_stages.doctor.device_findings import read_gpus
from eva_stages.doctor.findings import State
from eva_stages.solver.train import started_job
from tests.solver.jobs import job, save_models, save_pairs

GPUS = read_gpus().visible_count


def fail(bench: Bench) -> Figures:
    raise RuntimeError("this engine is broken")


def hang(bench: Bench) -> Figures:
    signal.pause()
    return {}


def test_a_failing_check_and_one_that_hangs_stop_no_other() -> None:
    absent, far = Check("absent", fail, "no_such_module", "vllm"), Check("far", fail, needs_gpu=True)
    hanging, lines = Check("hanging", hang, limit_seconds=0.2), list[str]()
    content = check_all(0, lines.append, [Check("broken", fail), hanging, absent, far])
    states = [row["state"] for row in content["checks"]]
    assert states == [State.ERROR, State.ERROR, State.OMISSION, State.OMISSION] and len(lines) == 4
    reasons = [row["reason"] for row in content["checks"]]
    assert "this engine is broken" in reasons[0] and "took longer" in reasons[1]
    assert "pip install 'eva-align[vllm]'" in reasons[2] and reasons[3] == "needs a GPU"
    shutil.rmtree(content["logs"])


def test_a_check_is_a_stage_whose_time_speed_and_memory_are_shown() -> None:
    content = check_all(0, print, [check for check in CHECKS if check.name == "reward model"])
    (row,) = content["checks"]
    assert row["state"] == State.OK and row["tokens/s"] > 0 and row["seconds"] > 0 and content["logs"] is None
    console = Console(width=80, record=True)
    console.print(as_rich([deep_table(content)]))
    assert max(map(len, console.export_text().splitlines())) <= 80


def test_training_with_fsdp_on_a_cpu_stops_before_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = save_models(tmp_path)
    job(tmp_path, {**folders, "pairs": save_pairs(tmp_path / "pairs")}, "dpo").write(tmp_path / "job.json")
    for name in ("ACCELERATE_USE_CPU", "ACCELERATE_USE_FSDP"):
        monkeypatch.setenv(name, "true")
    with pytest.raises(ConfigError, match="FSDP"):
        started_job(str(tmp_path / "job.json"))


@pytest.mark.skipif(not GPUS, reason="no GPU here: on a machine with one, these checks run every engine and launch file on it")
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_an_engine_works_on_the_gpu(check: Check) -> None:
    if obstacle := check.obstacle(GPUS):
        pytest.skip(obstacle)
    (row,) = check_all(GPUS, print, [check])["checks"]
    assert row["state"] == State.OK, row["reason"]
