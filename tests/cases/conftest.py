"""Fixtures that several files of cases share."""

from pathlib import Path

import pytest

from tests.cases.conversations import save_families
from tests.cases.models import save_models


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny policies with the chat template of each family."""
    return save_families(tmp_path_factory.mktemp("families"))


@pytest.fixture(scope="session")
def whole_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete tiny model of every kind that eva loads, by name."""
    return save_models(tmp_path_factory.mktemp("models"))
