"""What `eva convert` says where it cannot convert; what it makes of a real file is tested in `tests/real`."""

import sys
from pathlib import Path

import pytest

from eva_stages.core.errors import ConfigError
from eva_stages.models.converting import convert, find_gguf


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("no-such-package", "no-such-package is neither a file, a folder nor an installed package"),
        ("pip", "pip contains 0 .gguf files"),
        ("several", "contains 2 .gguf files .a.gguf, b.gguf.; give the path of a single file"),
        ("several/notes.txt", "contains 0 .gguf files"),
    ],
)
def test_a_source_without_one_gguf_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, says: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("several").mkdir()
    for name in ("a.gguf", "b.gguf", "notes.txt"):
        (Path("several") / name).touch()
    with pytest.raises(ConfigError, match=says):
        convert(source, Path("out"))


def test_a_file_and_a_folder_that_holds_it_mean_the_same(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.touch()
    assert find_gguf(str(file)) == find_gguf(str(tmp_path)) == file


def test_a_folder_is_never_overwritten_and_the_package_that_reads_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.gguf").touch()
    with pytest.raises(ConfigError, match="exists, and eva does not overwrite it; give another folder"):
        convert(str(tmp_path), tmp_path)
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ConfigError, match="pip install gguf"):
        convert(str(tmp_path), tmp_path / "out")
