"""What several files of cases share."""

from pathlib import Path

import pytest

from tests.cases.conversations import save_families


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny policies of all families of chat templates."""
    return save_families(tmp_path_factory.mktemp("families"))
