"""Benchmark files from their public homes, over real HTTP from a server that stands in for GitHub."""

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from eva_stages.core import homes
from eva_stages.core.errors import ConfigError
from eva_stages.core.homes import FileSource, Home, find_file

TEXT = '{"question_id": 1}\n'
HOME = Home("github", "who/what", "data/question.jsonl", "v1", hashlib.sha256(TEXT.encode()).hexdigest())


@pytest.fixture
def github(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that the server serves; its address and an empty cache are set."""
    site = tmp_path / "site"
    (site / "who/what/v1/data").mkdir(parents=True)
    (site / "who/what/v1/data/question.jsonl").write_text(TEXT)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(homes, "GITHUB", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield site
    server.shutdown()
    server.server_close()


def test_a_file_is_fetched_once_and_known_by_its_content(github: Path) -> None:
    first = find_file(FileSource(home=HOME), "place")
    (github / "who/what/v1/data/question.jsonl").unlink()
    second_file = find_file(FileSource(home=HOME), "place")
    assert first == second_file and first.digest == HOME.sha256 and first.path.read_text() == TEXT


def test_a_file_that_is_not_the_known_one_is_refused(github: Path) -> None:
    (github / "who/what/v1/data/question.jsonl").write_text("other")
    with pytest.raises(ConfigError, match=r"place: data/question.jsonl of GitHub's who/what at v1 is not the expected file"):
        find_file(FileSource(home=HOME), "place")


def test_a_home_that_has_no_such_file_and_a_path_that_is_none(github: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be fetched .*; give the path of a copy"):
        find_file(FileSource(home=Home("github", "who/what", "gone.jsonl")), "place")
    with pytest.raises(ConfigError, match=r"place: there is no file nowhere\.jsonl"):
        find_file(FileSource("nowhere.jsonl"), "place")
