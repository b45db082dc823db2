"""What all sections of a recipe share."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    FILE_FIELDS: ClassVar[Mapping[str, str]] = {}
    """Fields of a file, each with its description, that are resolved when the file is read."""
