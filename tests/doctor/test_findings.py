"""`eva doctor` without --deep: what it says of this machine, of a machine with GPUs, and of what a recipe needs."""

import json
import socket
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from rich.console import Console

from eva_stages.core.devices import has_accelerator
from eva_stages.core.recipe_files import load_recipe
from eva_stages.core.text_table import as_rich
from eva_stages.doctor.device_findings import GPU, GPUs, device_rows, missing_for, read_gpus
from eva_stages.doctor.diagnosis import diagnose
from eva_stages.doctor.findings import State, tables
from eva_stages.doctor.machine_findings import machine_rows
from eva_stages.doctor.package_findings import constraint_versions, installed_version, requirement_row
from eva_stages.doctor.recipe_findings import recipe_rows
from eva_stages.solver.launch_file import read_launch_file
from tests.conftest import run_eva

SMI = """#!/bin/sh
echo "0, NVIDIA H100 80GB HBM3, 81559, 80900, 580.159"
echo "1, NVIDIA H100 80GB HBM3, 81559, 1000, 580.159"
"""
EVOLVER = {"kind": "litellm", "model": "openai/tiny", "runtime": {"api_key_env": "DOCTOR_TEST_KEY"}}


def test_the_command_shows_rows_with_a_fix_for_each_fault_in_80_columns(tmp_path: Path) -> None:
    document = json.loads(run_eva("doctor", "quickstart", "--json", cwd=tmp_path).stdout)
    assert {"Python", "torch", "memory", "file locks", "Hub token", "launch file"} <= {row["name"] for row in document["rows"]}
    assert all(row["fix"] for row in document["rows"] if row["state"] in (State.WARNING, State.ERROR))
    console = Console(width=80, record=True)
    console.print(as_rich(tables(document)))
    assert max(map(len, console.export_text().splitlines())) <= 80
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_that_cannot_run_here_ends_with_exit_code_1(tmp_path: Path) -> None:
    output = run_eva("doctor", "quickstart", "--set", "solver.training.runtime.launch=fsdp2_8gpu", cwd=tmp_path, code=1)
    assert "needs 8 GPUs" in output.stdout and "1 error" in output.stdout


@pytest.mark.skipif(has_accelerator(), reason="the launch files may fit a machine with GPUs")
def test_a_run_whose_launch_file_does_not_fit_this_machine_starts_no_stage(tmp_path: Path) -> None:
    launch = ("quickstart", "--set", "solver.training.runtime.launch=ddp")
    output = run_eva("run", *launch, cwd=tmp_path, code=2)
    assert "solver.training.runtime.launch: ddp needs 8 GPUs; this machine has none; use cpu, or cpu_2" in output.stderr
    assert not (tmp_path / "runs").exists()
    run_eva("validate", *launch, cwd=tmp_path)


def test_packages_are_compared_with_the_requirements_and_the_constraint_versions() -> None:
    version = installed_version("numpy")
    assert version is not None and requirement_row(Requirement("numpy>=2"), {"numpy": version}) is None
    untested_row = requirement_row(Requirement("numpy>=2"), {"numpy": "2.0.0"})
    assert untested_row is not None and untested_row.state == State.WARNING and untested_row.fix == "pip install numpy==2.0.0"
    old = requirement_row(Requirement("numpy>=99"), {})
    assert old is not None and old.state == State.ERROR and "numpy>=99" in old.fix
    missing = requirement_row(Requirement("no-such-package>=1"), {})
    assert missing is not None and missing.state == State.ERROR and "no-such-package" in missing.fix
    assert "torch" in constraint_versions()


def test_the_devices_of_nvidia_smi_are_read_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvidia-smi").write_text(SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    gpus = read_gpus()
    assert gpus.devices[0] == GPU("0", "NVIDIA H100 80GB HBM3", 81559, 80900, "580.159") and gpus.visible_count == 1
    rows = {row.name: row for row in device_rows(gpus)}
    assert [rows[f"GPU {index}"].state for index in (0, 1)] == [State.OK, State.WARNING]
    assert "1 of 2" in rows["CUDA_VISIBLE_DEVICES"].value


@pytest.mark.skipif(has_accelerator(), reason="this machine has an accelerator")
def test_a_machine_without_a_gpu_is_not_broken() -> None:
    rows = {row.name: row for row in device_rows(GPUs(fault="no devices were found"))}
    assert rows["GPU"].state == State.ABSENT and rows["launch files"].state == State.OK


def test_launch_files_say_what_they_lack() -> None:
    assert missing_for(read_launch_file("cpu_2"), 0) == ""
    assert missing_for(read_launch_file("fsdp2_8gpu"), 4) == "needs 8 GPUs"
    assert missing_for(read_launch_file("single_gpu"), 1) == ""


def test_a_long_folder_for_temporary_files_and_a_missing_token_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setenv("HF_TOKEN", "hf_" + "secretsecret1")
    rows = {row.name: row for row in machine_rows(tmp_path / "runs")}
    assert rows["TMPDIR"].state == State.WARNING and "TMPDIR" in rows["TMPDIR"].fix
    assert rows["file locks"].state == rows["hard links"].state == State.OK
    assert rows["Hub token"].state == State.OK and "secret" not in rows["Hub token"].value


def test_a_launch_file_with_fsdp_on_a_cpu_is_refused_before_anything_runs(tmp_path: Path) -> None:
    file = tmp_path / "sharded.yaml"
    file.write_text("distributed_type: FSDP\nuse_cpu: true\nnum_processes: 2\n")
    recipe = load_recipe("quickstart", [f"solver.training.runtime.launch={file}"])
    assert any(row.state == State.ERROR and "FSDP" in row.value for row in recipe_rows(recipe, GPUs(), online=False))


def test_servers_are_contacted_with_consent_only_and_keys_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(address: str, online: bool) -> dict[str, tuple[State, str]]:
        evolver = json.dumps({**EVOLVER, "api_base": address})
        recipe = load_recipe("quickstart", [f"creator.evolve.generator={evolver}"])
        return {row.name: (row.state, row.value) for row in recipe_rows(recipe, GPUs(), online)}

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        assert rows(address, online=False)["server"][0] == State.OMISSION
        assert rows(address, online=True)["server"][0] == State.ERROR  # nothing listens yet
        listening.listen()
        assert rows(address, online=True)["server"][0] == State.OK
        assert rows(address, online=False)["key"][0] == State.ERROR
        monkeypatch.setenv("DOCTOR_TEST_KEY", "very-secret-value")
        state, value = rows(address, online=False)["key"]
        assert state == State.OK and "very-secret-value" not in value and "DOCTOR_TEST_KEY" in value


def test_a_recipe_that_publishes_needs_a_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    document = diagnose(load_recipe("quickstart", ["publish.to=somebody"]), runs=tmp_path)
    assert {(row["name"], row["state"]) for row in document["rows"]} >= {("publish", State.ERROR), ("Hub", State.OMISSION)}
