"""`eva status` once, and live on a terminal of its own while somebody works on the run."""

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from eva_stages.core.run_folder import Run
from eva_stages.views.run_status import Watch, status_table
from tests.conftest import run_eva


@pytest.fixture(scope="module")
def going(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run as it was while iteration 1 was training."""
    run = tmp_path_factory.mktemp("going") / "tiny"
    shutil.copytree(tiny_run, run)
    (train_folder,) = (run / "stages").glob("1-train-*")
    manifest = json.loads((train_folder / "manifest.json").read_text())
    (run / "work" / train_folder.name).mkdir()
    (run / "work" / train_folder.name / "metrics.jsonl").write_text('{"step": 3, "total_steps": 9, "loss": 0.5}\n{"step": 4, "total')
    for folder in (train_folder, *(run / "stages").glob("1-eval-*"), *(run / "stages").glob("1-health-*")):
        shutil.rmtree(folder)
    Run(run).event("start", stage="1-train", fingerprint=manifest["fingerprint"])
    return run


def watch(run: Path) -> tuple[subprocess.Popen[bytes], int]:
    """`eva status` on a terminal, and the end of it that we hold."""
    ours, child_end = pty.openpty()
    command = [sys.executable, "-m", "cli.main", "status", str(run)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "140", "LINES": "60", "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(command, stdin=child_end, stdout=child_end, stderr=child_end, env=environment, start_new_session=True)
    os.close(child_end)
    return process, ours


def pieces(terminal: int) -> Iterator[str]:
    """What comes onto a terminal, until it is closed."""
    while select.select([terminal], [], [], 120)[0]:
        try:
            yield os.read(terminal, 65536).decode(errors="replace")
        except OSError:
            return


def text_until(pieces_shown: Iterator[str], words: str, times: int) -> str:
    text = ""
    for piece in pieces_shown:
        text += piece
        if text.count(words) >= times:
            return text
    raise AssertionError(f"{words!r} came {text.count(words)} times and not {times}:\n{text}")


def test_status_follows_a_run_that_goes_and_ends_with_it(going: Path) -> None:
    with Run(going).lock():
        process, terminal = watch(going)
        pieces_shown = pieces(terminal)
        assert "running: process" in " ".join(text_until(pieces_shown, "running, step 3/9, loss 0.500", 2).split())
    rest = "".join(pieces_shown)
    assert process.wait() == 0
    assert "unfinished" in rest.rpartition("stages done")[0].rpartition("1-train")[2]


def test_leaving_the_live_status_is_no_error(going: Path) -> None:
    with Run(going).lock():
        process, terminal = watch(going)
        pieces_shown = pieces(terminal)
        text_until(pieces_shown, "running, step 3/9", 1)
        process.send_signal(signal.SIGINT)
        assert "interrupted" not in "".join(pieces_shown)
        assert process.wait() == 0


def test_status_is_plain_where_nobody_watches(going: Path) -> None:
    with Run(going).lock():
        plain = run_eva("status", str(going)).stdout
        document = json.loads(run_eva("status", str(going), "--json").stdout)
    assert "running, step 3/9" in plain
    assert "\x1b" not in plain
    states = {entry["stage"]: entry["state"] for entry in document["stages"]}
    assert states["1-pair"] == "done"
    assert states["1-train"] == "running"
    assert states["1-eval-answer"] == "to do"


def test_a_low_terminal_shows_the_stages_around_the_running_one() -> None:
    entries = [{"stage": f"0-s{number}", "state": "done" if number < 30 else "to do", "rows": 1, "seconds": 1.0} for number in range(40)]
    entries = [{**entry, "planned": {"seconds_expected": 2.0}} for entry in entries]
    ledger = {"compared_seconds": None, "earlier_attempts": 0, "left_seconds": 20.0}
    document = {"recipe": "r", "run": "d", "locked_by": None, "stages": entries, "ledger": ledger}
    table = status_table(document, height=14)
    assert [row[0] for row in table.rows] == [f"0-s{number}" for number in range(28, 36)]
    assert table.notes[0] == "30 of 40 stages done; 32 not shown; about 20 s left"
    assert len(status_table(document).rows) == 40


def test_status_holds_what_stages_took_against_their_plan(tiny_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "tiny"
    shutil.copytree(tiny_run, run)
    document = Watch(Run(run)).document()
    assert document["ledger"]["stages"] == len(document["stages"]) and document["ledger"]["compared_seconds"] is None
    assert all(entry["gpus"] == 0 and entry["bytes"] > 0 and entry["planned"]["state"] == "to do" for entry in document["stages"])
    plan = json.loads((run / "plan.json").read_text())
    for entry in plan["stages"]:
        entry |= {"seconds_expected": 60.0, "seconds_low": 30.0, "seconds_high": 90.0}
    (run / "plan.json").write_text(json.dumps(plan))
    (train_folder,) = (run / "stages").glob("1-eval-score-*")
    shutil.rmtree(train_folder)
    later = Watch(Run(run)).document()
    finished_count = len(later["stages"]) - 1
    assert (later["ledger"]["planned_seconds_expected"], later["ledger"]["left_seconds"]) == (60.0 * finished_count, 60.0)
    assert f"{finished_count} of {finished_count + 1} stages done; {finished_count} of them took" in status_table(later).notes[0]
