"""The live report: what it serves while stages are completed, and whom it refuses."""

import http.client
import shutil
import signal
import threading
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest

from benchmarks.synthetic_run import SyntheticRun
from eva_stages.core.run_folder import Run
from eva_stages.publishing.live_report import UNDRAWN_VERSION, LiveReport
from eva_stages.publishing.report_server import ReportServer
from tests.conftest import run_eva, start_eva


@pytest.fixture
def growing_run(tmp_path: Path) -> Run:
    """A run with its first four stages done."""
    root = SyntheticRun(tmp_path / "growing", prompts=8, responses=2, iterations=0, words=5).write()
    for folder in (root / "stages").iterdir():
        if folder.name.split("-")[1] not in ("prompts", "respond", "reward", "pair"):
            shutil.rmtree(folder)
    return Run(root)


@pytest.fixture
def server(growing_run: Run) -> Iterator[ReportServer]:
    with ReportServer(LiveReport(growing_run)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def reply_to(server: ReportServer, path: str, host: str = "localhost", method: str = "GET") -> tuple[int, str, Message]:
    """Status, text and headers."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    connection.request(method, path, headers={"Host": host})
    reply = connection.getresponse()
    return reply.status, reply.read().decode(), reply.headers


def test_the_report_is_drawn_again_when_a_stage_is_done_and_nothing_is_written(growing_run: Run, tmp_path: Path) -> None:
    (rewards,) = growing_run.stages.glob("0-reward-*")
    shutil.move(rewards, tmp_path / "later")
    files = sorted(growing_run.root.rglob("*"))
    live_report = LiveReport(growing_run, rest=0)
    page, version = live_report.page()
    assert version == UNDRAWN_VERSION and "The report is being drawn." in page and "script-src 'self'" in page
    status, wanted_version = live_report.status()
    assert "not running" in status and wanted_version != version
    page, version = live_report.report()
    assert version == wanted_version and 'data-plot="solver-mean"' not in page
    assert live_report.report() == live_report.page() == (page, version)
    assert sorted(growing_run.root.rglob("*")) == files
    shutil.move(tmp_path / "later", rewards)
    new_page, new_version = live_report.report()
    assert new_version == live_report.status()[1] != version and 'data-plot="solver-mean"' in new_page


def test_drawing_rests_between_stages(growing_run: Run, tmp_path: Path) -> None:
    live_report = LiveReport(growing_run, rest=1e9)
    drawn_page = live_report.report()
    shutil.move(next(growing_run.stages.glob("0-reward-*")), tmp_path / "later")
    assert live_report.status()[1] == drawn_page[1] and live_report.report() == drawn_page


def test_only_browsers_of_this_machine_that_know_the_address_can_read(server: ReportServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    status_path = f"/{server.secret}/status"
    for host in ("localhost", f"127.0.0.1:{server.server_port}", "localhost:9000"):
        code, _, headers = reply_to(server, status_path, host)
        assert code == 200 and headers["X-Version"] and headers["Access-Control-Allow-Origin"] is None
    for host in ("evil.example", f"evil.example:{server.server_port}", "", "localhost.evil.example"):
        assert reply_to(server, status_path, host)[0] == 403
    for path in ("/", "/status", "/wrong/status", f"/{server.secret}", f"/{server.secret}/../recipe.yaml", f"/{server.secret}/recipe.yaml"):
        code, text, _ = reply_to(server, path)
        assert code == 404 and "synthetic" not in text
    assert reply_to(server, status_path, method="POST")[0] == 501
    with ReportServer(server.live_report, server.server_port) as other_server:  # the port is taken
        assert other_server.server_port != server.server_port and other_server.secret != server.secret


def test_an_error_is_a_reply_and_the_server_goes_on(server: ReportServer, growing_run: Run) -> None:
    recipe_path = growing_run.root / "recipe.yaml"
    recipe = recipe_path.read_text()
    recipe_path.write_text("{")
    code, text, _ = reply_to(server, f"/{server.secret}/status")
    assert code == 503 and "recipe.yaml is damaged" in text
    recipe_path.write_text(recipe)
    assert reply_to(server, f"/{server.secret}/")[0] == 200


def test_the_command_prints_the_address_and_ctrl_c_ends_it(growing_run: Run) -> None:
    process = start_eva("report", str(growing_run.root), "--watch", PYTHONUNBUFFERED="")
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    with urllib.request.urlopen(f"{address}status") as reply:
        assert "stages done" in reply.read().decode()
    process.send_signal(signal.SIGINT)
    assert "Ctrl-C ends the watching" in process.communicate()[1] and process.returncode == 0


def test_watching_several_runs_is_refused(growing_run: Run) -> None:
    result = run_eva("report", str(growing_run.root), str(growing_run.root), "--watch", code=2)
    assert "--watch shows one run, and 2 are given" in result.stderr
