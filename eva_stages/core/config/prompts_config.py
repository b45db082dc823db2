"""The source of a run's seed prompts."""

from typing import Annotated, Literal

from pydantic import Field

from eva_stages.core.config.paths import FilePath
from eva_stages.core.config.section import Section

LettercraftDistribution = Literal["classic", "classic_target", "deep", "deep_target"]


class LettercraftPrompts(Section):
    """Lettercraft instructions."""

    kind: Literal["lettercraft"]
    size: int = Field(480, ge=8)
    """Number of seed prompts."""
    distribution: LettercraftDistribution = "classic"
    """`classic`: mostly short instructions, a few hard ones. `deep`: one or two operations, weak ones rare, for `policy.model:
    lettercraft-deep`. `deep_target`: four or five operations, as in that world's benchmark."""
    fresh: LettercraftDistribution | None = None
    """Distribution of the new prompts that creator.control `human` takes; null = that of the seed prompts."""
    references: bool = False
    """Gives the prompts, and the questions of Lettercraft's benchmark, their exact answer as reference, for the verifier `lettercraft`."""


Families = dict[str, dict[str, int | float | bool | str]]
"""Families of reasoning-gym with values for fields of their configuration; the family's defaults count for the rest."""


class ReasoningGymPrompts(Section):
    """Tasks of reasoning-gym's procedural families, as many of each, with their references (pip install 'eva-align[reasoning]')."""

    kind: Literal["reasoning_gym"]
    families: Families = Field(min_length=1)
    """Families by name, with the values of their knobs, for example {chain_sum: {min_terms: 2, max_terms: 2}}. The method `turn_knob` turns
    the knobs that are given here."""
    size: int = Field(480, ge=8)
    """Number of seed prompts."""
    demonstrations: int = Field(0, ge=0, le=8)
    """Solved tasks of the family that precede every question as earlier turns, the same for all its prompts: they show a small model what
    an answer looks like."""


class FilePrompts(Section):
    """Prompts from a local .jsonl, .json, .csv or .parquet file."""

    kind: Literal["file"]
    path: FilePath
    column: str | None = None
    """Column with the prompt: a text, chat messages, or ShareGPT's turns; null = prompt, messages, conversations or instruction."""
    reference_column: str | None = None
    """Column with references for verifiers; values that are not text are stored as JSON."""
    size: int | None = Field(None, ge=1)
    """Size of a seeded sample; null = all prompts. The control `human` uses as many other prompts in each iteration."""
    max_characters: int = Field(8000, ge=1)
    """Longer prompts are left out and counted."""


class HubPrompts(Section):
    """Prompts from a data set on the Hub, for example one that another run pushed."""

    kind: Literal["hub"]
    id: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    """For example user/run."""
    config: str | None = None
    """Configuration of the data set, for example pairs-1; null = the default."""
    split: str = "train"
    revision: str | None = None
    """Branch, tag or commit; null = main. It is resolved to a commit before the run."""
    column: str | None = None
    """Column with the prompt: a text, chat messages, or ShareGPT's turns; null = prompt, messages, conversations or instruction."""
    reference_column: str | None = None
    """Column with references for verifiers; values that are not text are stored as JSON."""
    size: int | None = Field(None, ge=1)
    """Size of a seeded sample; null = all prompts."""
    max_characters: int = Field(8000, ge=1)
    """Longer prompts are left out and counted."""


Prompts = Annotated[LettercraftPrompts | ReasoningGymPrompts | FilePrompts | HubPrompts, Field(discriminator="kind")]
