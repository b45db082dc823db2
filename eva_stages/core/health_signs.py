"""The figures of an iteration's health: description, side of the limit, possible causes and remedies."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from eva_stages.core.config.health_config import Health
from eva_stages.core.stage import Check


class Meaning(NamedTuple):
    says: str
    """The figure in words."""
    is_maximum: bool
    """Whether the limit is an upper limit."""
    advice: str
    """Possible causes and remedies."""


REPETITION = (
    "the evolver may repeat itself; set creator.curate.novelty or creator.curate.archive, lower creator.curate.near_duplicate, or use "
    "another evolver or method"
)

SIGNS: Mapping[str, Meaning] = {
    "length_drift": Meaning(
        "change of the responses' length against the base policy (factor)",
        True,
        "the reward may favour length; check responses, use another reward, or set solver.loss.kind=simpo",
    ),
    "length_limited": Meaning(
        "share of responses cut at the length limit",
        True,
        "responses may never end: raise policy.generator.max_new_tokens, or check the end tokens in the model's generation_config.json "
        "and chat template",
    ),
    "reward_hacking": Meaning(
        "decrease of the judged win rate while the reward increased",
        True,
        "the policy may exploit the reward; check responses with high rewards, or change the reward",
    ),
    "reward_divergence": Meaning(
        "p value of a decrease of the held-out reward while the training reward increased",
        False,
        "the policy probably exploits the training reward; compare responses that both rewards score, stop before this iteration, or use "
        "another reward",
    ),
    "judge_kappa": Meaning(
        "agreement of the judge with itself (kappa)",
        False,
        "the judge's verdicts are unstable; set its temperature to 0, use a stronger judge, or judge every question several times",
    ),
    "equal_responses": Meaning(
        "share of sampled responses that equal another one",
        True,
        "the policy may have collapsed; lower solver.training.learning_rate or epochs, or raise policy.generator.temperature",
    ),
    "equal_rewards": Meaning(
        "share of a step's prompts whose responses have equal rewards",
        True,
        "such prompts teach nothing: take easier or harder prompts, raise policy.generator.temperature, or sample more responses",
    ),
    "late_share": Meaning(
        "share of the evolutions that came too late",
        True,
        "the evolver is slower than training: raise online.lag, or lower creator.evolve.generations or creator.selection.fraction",
    ),
    "evolved_share": Meaning(
        "evolved prompts, as a share of the number that creator.mix.evolved_share requests,",
        False,
        "most evolutions may have been rejected, for the reasons counted in the summary; use a stronger creator.evolve.generator or "
        "another creator.evolve.method, raise creator.evolve.generations or creator.selection.fraction, or lower creator.mix.evolved_share",
    ),
    "gate_rate": Meaning(
        "share of the evolved prompts that the gate passes",
        False,
        "the evolver may write invalid prompts, for the reasons counted in the summary; use a stronger creator.evolve.generator, or check "
        "the precision of creator.curate.gate by its audit",
    ),
    "seed_share": Meaning(
        "effective seeds per prompt",
        False,
        "the prompts may descend from few seed prompts; raise creator.selection.fraction or lower creator.mix.evolved_share",
    ),
    "distinct_prompts": Meaning(
        "distinct trigrams of the prompts against the seeds",
        False,
        "evolved prompts may be similar to each other; lower creator.curate.near_duplicate, or use another evolver or method",
    ),
    "vendi_share": Meaning(
        "effective number of different prompts, per prompt",
        False,
        REPETITION,
    ),
    "cluster_share": Meaning(
        "share of the prompts with a similar one",
        True,
        REPETITION,
    ),
    "nearest_distance": Meaning(
        "distance of new prompts to the nearest earlier one",
        False,
        REPETITION,
    ),
    "pair_share": Meaning(
        "pairs per prompt",
        False,
        "the responses to a prompt may be equally good; evolve harder prompts, or sample more responses",
    ),
    "chosen_nll": Meaning(
        "growth of the chosen responses' negative log-likelihood (factor)",
        True,
        "training may lower the likelihood of chosen responses; raise solver.loss.nll_alpha, or lower solver.training.learning_rate",
    ),
    "kl": Meaning(
        "KL divergence from the base policy (nats per response)",
        True,
        "the policy may have drifted far; raise solver.loss.beta, lower solver.training.learning_rate, or set solver.reference=initial",
    ),
    "kl_per_token": Meaning(
        "KL divergence from the base policy (nats per token)",
        True,
        "the policy may have drifted far; raise solver.loss.beta, lower solver.training.learning_rate, or set solver.reference=initial",
    ),
}
WHILE_TRAINING = ("equal_rewards", "late_share")
"""Figures that only online training has, while it runs."""
UNSCORED_SIGN = "unscored"
"""Such a figure too, with a limit under `limits`."""
ONLINE_MEANINGS: Mapping[str, Meaning] = {
    "evolved_share": Meaning(
        "evolved prompts that training used, as a share of the uses that online.buffer.share requests,",
        False,
        "most evolutions may have been rejected, for the reasons counted in the summary, or have a low priority; use a stronger "
        "creator.evolve.generator or another creator.evolve.method, or raise creator.evolve.generations or creator.selection.fraction",
    ),
    "seed_share": Meaning(
        "effective seeds per prompt",
        False,
        "the prompts may descend from few seed prompts; lower online.buffer.share, or raise online.buffer.staleness or temperature",
    ),
}
"""Meanings in mode online, where they differ."""


def checks(health: Health, is_online: bool = False) -> tuple[Check, ...]:
    """The recipe's limits as checks of the stage that measures the figures."""
    return tuple(check for check in _checks(health, is_online) if check.figure not in WHILE_TRAINING)


def training_checks(health: Health, evolving_intervals: int, unscored_limit: float) -> tuple[Check, ...]:
    """The limits that online training compares with its figures while it runs.

    Args:
        evolving_intervals: up to this one; in the first the buffer is full of seed prompts, so that few prompts are evolved ones.
        unscored_limit: the recipe's limit on responses without a reward, which is an error at the end of the interval.
    """
    names = (*WHILE_TRAINING, "length_limited", "kl_per_token", *(("evolved_share",) if evolving_intervals > 1 else ()))
    limits = [check for check in _checks(health, is_online=True) if check.figure in names]
    says = "share of responses without a reward"
    return *limits, Check(UNSCORED_SIGN, unscored_limit, True, False, says, "check the reward", "limits.unscored")


def _checks(health: Health, is_online: bool) -> Iterator[Check]:
    limits, meanings = health.model_dump(), {**SIGNS, **(ONLINE_MEANINGS if is_online else {})}
    for name, meaning in meanings.items():
        if limits[name] is not None:
            yield Check(name, limits[name], meaning.is_maximum, name in health.stop, meaning.says, meaning.advice, f"health.{name}")
