"""Limits for the health of an iteration."""

from pydantic import Field, model_validator

from eva_stages.core.config.rewards_config import PointwiseReward
from eva_stages.core.config.section import Section

PROBE_SAMPLES = 4
"""Responses to each prompt of the probe."""


_NO_LIMITS = ("answers", "held_out_reward", "judge_repeats", "stop")


class Health(Section):
    """Figures outside a limit produce a warning, or stop the run if listed under `stop`. A null limit checks nothing. Limits are no part
    of a stage's identity: a stopped run resumes with other limits without recomputing."""

    answers: int = Field(256, ge=0)
    """Responses that measure the new policy's distance from the base policy. Without a Lettercraft evaluation they are sampled for this
    purpose, 4 per prompt for a sample of the seed prompts. 0 = no measurement."""
    held_out_reward: PointwiseReward | None = None
    """A reward that training never sees, of any kind that scores single responses. It scores the responses that the training reward scores
    for health, in every iteration."""
    judge_repeats: int = Field(0, ge=0)
    """Questions of the first judged benchmark that the judge judges again in the same order, once per run. 50 give a standard error of
    about 0.07 for judge_kappa."""
    length_drift: float | None = Field(2.0, ge=1)
    """At most: ratio of response length to that of the base policy, or its inverse."""
    length_limited: float | None = Field(0.9, ge=0, le=1)
    """At most: share of responses that are cut at policy.generator.max_new_tokens."""
    reward_hacking: float | None = Field(0.03, ge=0, le=1)
    """At most: decrease of the judged win rate since the previous iteration while the mean reward increased."""
    reward_divergence: float | None = Field(0.01, ge=0, le=1)
    """At least: p value of a decrease of the held-out reward since its best earlier iteration while the mean reward increased; the share of
    false alarms, per iteration, where it did not decrease."""
    judge_kappa: float | None = Field(0.6, ge=-1, le=1)
    """At least: agreement of the judge with itself beyond chance (Cohen's kappa, quadratic weights)."""
    equal_responses: float | None = Field(0.97, ge=0, le=1)
    """At most: share of a prompt's sampled responses that equal another one; 1 = all are equal."""
    equal_rewards: float | None = Field(0.95, ge=0, le=1)
    """At most: share of a step's prompts whose responses all have the same reward, while online training runs."""
    late_share: float | None = Field(0.5, ge=0, le=1)
    """At most: share of the evolutions that come too late to be used, while online training runs."""
    evolved_share: float | None = Field(0.5, ge=0, le=1)
    """At least: evolved prompts in the prompt set, as a share of the number that creator.mix.evolved_share requests; in mode online, of the
    uses that online.buffer.share requests."""
    gate_rate: float | None = Field(0.3, ge=0, le=1)
    """At least: evolved prompts that creator.curate.gate passes, as a share of those with a verdict."""
    seed_share: float | None = Field(0.05, ge=0, le=1)
    """At least: effective number of seed prompts that the prompts descend from, per prompt."""
    distinct_prompts: float | None = Field(0.25, ge=0)
    """At least: share of distinct word trigrams in the prompts, over that of the seed prompts."""
    vendi_share: float | None = Field(0.02, ge=0, le=1)
    """At least: effective number of different prompts, of all prompts up to the iteration, per prompt (Vendi score). This figure and the
    next two need creator.analysis.coverage."""
    cluster_share: float | None = Field(None, ge=0, le=1)
    """At most: share of the prompts with another one at a BLEU of at least 0.5. Languages of few words have nearly 1 from the start."""
    nearest_distance: float | None = Field(0.1, ge=0, le=1)
    """At least: mean distance of the iteration's new prompts to the nearest earlier prompt, from 0 to 1."""
    pair_share: float | None = Field(0.1, ge=0, le=1)
    """At least: pairs per prompt."""
    chosen_nll: float | None = Field(2.0, gt=0)
    """At most: growth factor of the chosen responses' negative log-likelihood during training."""
    kl: float | None = Field(None, ge=0)
    """At most: KL divergence from the base policy, in nats per response; longer responses have more."""
    kl_per_token: float | None = Field(1.0, ge=0)
    """At most: KL divergence from the base policy, in nats per token."""
    stop: tuple[str, ...] = ()
    """Figures that stop the run after the iteration, or online training while it runs; all others produce a warning."""

    @property
    def probe_prompts(self) -> int:
        """Prompts of the probe."""
        return max(1, self.answers // PROBE_SAMPLES)

    @model_validator(mode="after")
    def _stops_have_limits(self) -> "Health":
        limits = self.model_dump(exclude=set(_NO_LIMITS))
        if unknown := [name for name in self.stop if name not in limits]:
            raise ValueError(f"stop names {', '.join(unknown)}; known: {', '.join(limits)}")
        if names_without_limit := [name for name in self.stop if limits[name] is None]:
            raise ValueError(f"stop names {', '.join(names_without_limit)}, which have no limit; set one under health")
        return self
