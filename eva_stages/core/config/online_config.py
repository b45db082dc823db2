"""Online eva: prompts evolve inside training."""

from typing import Literal

from pydantic import Field

from eva_stages.core.config.section import Section


class Buffer(Section):
    """The prompts that training returns to, and that evolutions enter, over those of the lowest priority.

    A prompt is drawn with probability P = (1 - staleness) rank^(-1 / temperature) / Z + staleness * age / Z': its rank by its metric, and
    the steps since its last use."""

    size: int = Field(4000, ge=1)
    share: float = Field(0.5, ge=0, le=1)
    """Share of a step's prompts that are drawn from the buffer; the rest are seed prompts."""
    staleness: float = Field(0.3, ge=0, le=1)
    """rho, the part of P that is proportional to the steps since the last use."""
    temperature: float = Field(0.3, gt=0)
    """beta; a larger one makes prompts of lower rank more likely."""
    priority: Literal["rank", "uniform"] = "rank"
    """`uniform` draws every prompt of the buffer with the same probability."""


class Online(Section):
    """Settings of mode online."""

    interval: int = Field(ge=1)
    """Optimiser steps of an iteration; evaluation, health and tables come after each. The first one trains on seed prompts only, and fills
    the buffer."""
    buffer: Buffer = Buffer()
    lag: int = Field(0, ge=0)
    """Steps from drawing prompts to evolve until their evolutions enter the buffer. With 0 training waits for them; otherwise it waits at
    checkpoints only, evolutions that are not there enter later, and those that are more than `lag` steps late are dropped and counted."""
