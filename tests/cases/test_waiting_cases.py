"""Shared by eva's processes: threads wait without spinning, progress is reported while a stage runs, libraries print nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from eva_stages.core import progress
from eva_stages.core.progress import Reporter

ROOT = Path(__file__).parents[2]


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "KMP_BLOCKTIME")}
    settings = {**variables, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=settings)


def test_threads_wait_without_spinning_unless_the_environment_says_otherwise() -> None:
    code = "import sys, os, eva_stages; print(os.environ['OMP_WAIT_POLICY'], os.environ['KMP_BLOCKTIME'], 'torch' in sys.modules)"
    assert python(code).stdout.split() == ["PASSIVE", "0", "False"]
    assert python(code, OMP_WAIT_POLICY="ACTIVE").stdout.split()[0] == "ACTIVE"


def test_importing_distilabels_steps_prints_nothing() -> None:
    assert python("import eva_stages.evaluation.pair_judging").stderr == ""


def test_a_stage_without_progress_is_still_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "PLAIN_SECONDS", -1.0)
    with Reporter().task("0-pair") as task:
        task.beat()
        task.update(3, 12)
        task.beat()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("0-pair: running for ") and lines[1].startswith("0-pair: 3/12 rows, ")
