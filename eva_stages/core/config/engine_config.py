"""Where row stages run. Never part of what a stage is."""

from typing import Annotated, Literal

from pydantic import Field

from eva_stages.core.config.section import Section


class LocalEngine(Section):
    """This machine."""

    kind: Literal["local"] = "local"


class Copies(Section):
    """Resources of each copy of a row stage's steps; a copy is one Ray actor with all steps of the stage."""

    count: int | None = Field(None, ge=1)
    """Copies; null = as many as the cluster's nodes hold."""
    cpus: float = Field(1, gt=0)
    """CPUs per copy."""
    gpus: float | None = Field(None, ge=0)
    """GPUs per copy; null = those that its models need, none on a cluster without GPUs."""


class RayEngine(Section):
    """An existing Ray cluster (pip install 'eva-align[ray]'), whose nodes share the run folder, the models and the Python environment."""

    kind: Literal["ray"]
    address: str = Field("auto", pattern=r"^(auto|[\w.-]+:\d+)$")
    """host:port of the cluster's head; auto = the cluster that this machine is a node of."""
    copies: Copies = Copies()
    steps: dict[str, Copies] = {}
    """Replaces `copies` for stages by name, for example respond or creator-reward."""


Engine = Annotated[LocalEngine | RayEngine, Field(discriminator="kind")]
