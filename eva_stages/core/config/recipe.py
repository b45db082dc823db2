"""The complete recipe."""

import datetime
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from eva_stages.core.config.creator_config import Creator
from eva_stages.core.config.engine_config import Engine, LocalEngine
from eva_stages.core.config.evaluation_config import Evaluation
from eva_stages.core.config.health_config import Health
from eva_stages.core.config.models_config import Policy
from eva_stages.core.config.online_config import Online
from eva_stages.core.config.prompts_config import Prompts
from eva_stages.core.config.rewards_config import Reward
from eva_stages.core.config.section import Section
from eva_stages.core.config.solver_config import ON_POLICY_LOSSES, Solver

EXTENDS = "extends"


class Publish(Section):
    """Push the run to the Hub after each iteration; needs a token with write permission (`hf auth login`, or HF_TOKEN)."""

    to: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """User or organisation."""
    private: bool = False


class Limits(Section):
    """A stage fails above these shares. They are not part of a stage's identity.

    A rerun repeats the rows with a failed call and no others."""

    empty: float = Field(0.5, ge=0, le=1)
    """Empty or missing responses."""
    unscored: float = Field(0.05, ge=0, le=1)
    """Responses without a reward."""
    unevolved: float = Field(0.05, ge=0, le=1)
    """Evolver calls that failed. Rejected evolutions are not failures; see health.evolved_share."""
    uncriticised: float = Field(0.05, ge=0, le=1)
    """Critic calls that failed."""
    unrewritten: float = Field(0.05, ge=0, le=1)
    """Rewriter calls that failed. Rejected rewrites are not failures."""
    ungated: float = Field(0.05, ge=0, le=1)
    """Calls of the gate's judge or function that failed, and replies without a verdict; also those of its audit."""
    unanalysed: float = Field(0.05, ge=0, le=1)
    """Scorer calls that failed, and prompts for which the topic classifier failed."""
    unjudged: float = Field(0.02, ge=0, le=1)
    """Judge calls that failed."""
    no_verdict: float = Field(0.5, ge=0, le=1)
    """Judgments without a verdict."""


class Runtime(Section):
    rows_per_part: int = Field(64, ge=1)
    """Rows per durable write of a row stage, and per call of its model."""
    engine: Engine = LocalEngine()
    """Engine that runs row stages."""
    date: datetime.date | None = None
    """Today's date for chat templates that show one; null = the day on which the run started. Part of a stage's identity only where the
    template shows it."""


class Recipe(Section):
    """A run."""

    FILE_FIELDS = {
        EXTENDS: "The recipe that this one changes: a packaged one by its name, or a path relative to this file. Mappings are merged; "
        "everything else is replaced, also a mapping whose `kind` changes. Without a name of its own, the recipe has that of its file."
    }

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run's folder below runs/."""
    seed: int = Field(42, ge=0)
    """Seed of everything that is sampled."""
    iterations: int = Field(2, ge=0)
    """eva iterations after the base round (iteration 0) on the seed prompts."""
    mode: Literal["offline", "online"] = "offline"
    """`offline` alternates between creating prompts and training on them; `online` evolves prompts while it trains, with a loss that
    samples responses."""
    online: Online | None = None
    """Only with mode online, which needs it."""
    trust_code: bool = False
    """Consent to importing the Python files that the recipe names. They run with your permissions: read them first. --trust sets this."""
    prompts: Prompts
    policy: Policy
    reward: Reward
    creator: Creator
    solver: Solver
    evaluation: Evaluation = Evaluation()
    health: Health = Health()
    publish: Publish | None = None
    limits: Limits = Limits()
    runtime: Runtime = Runtime()

    @model_validator(mode="before")
    @classmethod
    def _default_metric(cls, data: Any) -> Any:
        """Resolve the default of `creator.metric`, which depends on the loss, so that it is part of every dump of the recipe."""
        creator, loss = _section(data, "creator"), _section(_section(data, "solver"), "loss")
        if creator is None or creator.get("metric") is not None:
            return data
        on_policy = loss is not None and loss.get("kind") in ON_POLICY_LOSSES
        return {**data, "creator": {**creator, "metric": "reward_max_minus_mean" if on_policy else "reward_gap"}}

    @model_serializer(mode="wrap")
    def _without_unused_mode(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Recipes of mode offline have the dumps that they had before there was another mode."""
        data: dict[str, Any] = dump(self)
        unused_fields = {"mode", *(() if self.online else ("online",))} if self.mode == "offline" else set[str]()
        return {name: value for name, value in data.items() if name not in unused_fields}


def _section(data: Any, name: str) -> Mapping[str, Any] | None:
    """A section of a recipe that is not validated yet, if there is one."""
    section = data.get(name) if isinstance(data, Mapping) else None
    return section if isinstance(section, Mapping) else None
