"""Where a run's seed prompts come from."""

from typing import Annotated, Literal

from pydantic import Field

from eva_stages.core.config.paths import FilePath
from eva_stages.core.config.section import Section


class LettercraftPrompts(Section):
    """Lettercraft instructions: mostly short, with a thin tail of hard ones."""

    kind: Literal["lettercraft"]
    size: int = Field(480, ge=8)
    """Number of seed prompts."""


class FilePrompts(Section):
    """Prompts from a local .jsonl, .json, .csv or .parquet file."""

    kind: Literal["file"]
    path: FilePath
    column: str | None = None
    """Column with the prompt: a text, chat messages, or ShareGPT's turns; null = prompt, messages, conversations or instruction."""
    reference_column: str | None = None
    """Column with what a verifier checks answers against; kept as text, or as JSON where it is no text."""
    size: int | None = Field(None, ge=1)
    """Use a seeded sample of this many; null = all. The control `human` takes as many others for each iteration."""
    max_characters: int = Field(8000, ge=1)
    """Longer prompts are left out and counted."""


class HubPrompts(Section):
    """Prompts from a data set on the Hub, such as another run's pushed one."""

    kind: Literal["hub"]
    id: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    """As in user/run."""
    config: str | None = None
    """Configuration of the data set, such as pairs-1; null = its default."""
    split: str = "train"
    revision: str | None = None
    """Branch, tag or commit; null = main. It is resolved to a commit before anything runs."""
    column: str | None = None
    """Column with the prompt: a text, chat messages, or ShareGPT's turns; null = prompt, messages, conversations or instruction."""
    reference_column: str | None = None
    """Column with what a verifier checks answers against; kept as text, or as JSON where it is no text."""
    size: int | None = Field(None, ge=1)
    """Use a seeded sample of this many; null = all."""
    max_characters: int = Field(8000, ge=1)
    """Longer prompts are left out and counted."""


Prompts = Annotated[LettercraftPrompts | FilePrompts | HubPrompts, Field(discriminator="kind")]
