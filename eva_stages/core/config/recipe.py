"""The whole recipe."""

import datetime

from pydantic import Field

from eva_stages.core.config.creator_config import Creator
from eva_stages.core.config.engine_config import Engine, LocalEngine
from eva_stages.core.config.evaluation_config import Evaluation
from eva_stages.core.config.health_config import Health
from eva_stages.core.config.models_config import Policy
from eva_stages.core.config.prompts_config import Prompts
from eva_stages.core.config.rewards_config import Reward
from eva_stages.core.config.section import Section
from eva_stages.core.config.solver_config import Solver


class Publish(Section):
    """Push the run to the Hub after each iteration; needs a token with write permission (`hf auth login`, or HF_TOKEN)."""

    to: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """User or organisation."""
    private: bool = False


class Limits(Section):
    """Above these shares a stage fails instead of going on; not part of any stage's identity.

    The next attempt at a stage asks again for the rows with a failed call, and for no others."""

    empty: float = Field(0.5, ge=0, le=1)
    """Empty or missing responses."""
    unscored: float = Field(0.05, ge=0, le=1)
    """Responses without a reward."""
    unevolved: float = Field(0.05, ge=0, le=1)
    """Evolver calls that failed. Evolutions that were rejected are no failures; see health.evolved_share."""
    uncriticised: float = Field(0.05, ge=0, le=1)
    """Critic calls that failed."""
    unrewritten: float = Field(0.05, ge=0, le=1)
    """Rewriter calls that failed. Rewrites that were rejected are no failures."""
    unanalysed: float = Field(0.05, ge=0, le=1)
    """Scorer calls that failed, and prompts for which the topic classifier failed."""
    unjudged: float = Field(0.02, ge=0, le=1)
    """Judge calls that failed."""
    no_verdict: float = Field(0.5, ge=0, le=1)
    """Judgments that were made but hold no verdict."""


class Runtime(Section):
    rows_per_part: int = Field(64, ge=1)
    """Rows between two durable writes of a row stage, and rows per call of its model."""
    engine: Engine = LocalEngine()
    """Where row stages run."""
    date: datetime.date | None = None
    """What chat templates that show a date are given as today's; null = the day on which the run began. Part of a stage's identity only
    where the template shows it."""


class Recipe(Section):
    """A whole run."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(42, ge=0)
    iterations: int = Field(2, ge=0)
    """eva iterations after the base round (iteration 0) on the seed prompts."""
    trust_code: bool = False
    """Import the Python files that the recipe names functions in, which may do anything: read them first. --trust sets this."""
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
