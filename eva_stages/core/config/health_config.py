"""Limits of what a healthy iteration shows."""

from typing import Literal

from pydantic import Field, model_validator

from eva_stages.core.config.section import Section

Sign = Literal[
    "length_drift",
    "length_limited",
    "reward_hacking",
    "equal_responses",
    "evolved_share",
    "seed_share",
    "distinct_prompts",
    "pair_share",
    "chosen_nll",
    "kl",
    "kl_per_token",
]

PROBE_SAMPLES = 4
"""Responses to each prompt of the probe."""


class Health(Section):
    """A figure beyond its limit is told, or ends the run if it stands in `stop`. A null limit checks nothing; no limit is part of any
    stage's identity, so that a run that was stopped goes on with another one and computes nothing anew."""

    answers: int = Field(256, ge=0)
    """Answers of the new policy that are looked at for its distance to theta_0, and made for it where no Lettercraft evaluation makes
    any: 4 to each of a sample of the seed prompts. 0 = neither."""
    length_drift: float | None = Field(2.0, ge=1)
    """At most: how many times longer, or shorter, answers are than those of theta_0."""
    length_limited: float | None = Field(0.9, ge=0, le=1)
    """At most: share of answers that are cut at policy.generator.max_new_tokens; 1 = none comes to an end."""
    reward_hacking: float | None = Field(0.03, ge=0, le=1)
    """At most: fall of the judged win rate since the iteration before while the mean reward rose."""
    equal_responses: float | None = Field(0.9, ge=0, le=1)
    """At most: share of a prompt's sampled answers that repeat one of the others; 1 = all are the same."""
    evolved_share: float | None = Field(0.5, ge=0, le=1)
    """At least: evolved prompts in the prompt set, as a share of those that creator.mix.evolved_share asks for."""
    seed_share: float | None = Field(0.05, ge=0, le=1)
    """At least: effective number of seeds that the prompts descend from, per prompt."""
    distinct_prompts: float | None = Field(0.25, ge=0)
    """At least: share of distinct word trigrams in the prompts, over that of the seed prompts."""
    pair_share: float | None = Field(0.1, ge=0, le=1)
    """At least: pairs per prompt."""
    chosen_nll: float | None = Field(2.0, gt=0)
    """At most: how many times the negative log-likelihood of the chosen responses grew while training."""
    kl: float | None = Field(None, ge=0)
    """At most: KL divergence from theta_0, in nats per answer; long answers have more."""
    kl_per_token: float | None = Field(1.0, ge=0)
    """At most: the same in nats per token."""
    stop: tuple[Sign, ...] = ()
    """Figures that end the run after the iteration; the others warn."""

    @property
    def probe_prompts(self) -> int:
        """Prompts of the probe."""
        return max(1, self.answers // PROBE_SAMPLES)

    @model_validator(mode="after")
    def _stops_have_limits(self) -> "Health":
        limits = self.model_dump()
        if without := [name for name in self.stop if limits[name] is None]:
            raise ValueError(
                f"stop names {', '.join(without)}, which has no limit; give {' and '.join(f'health.{name}' for name in without)}"
            )
        return self
