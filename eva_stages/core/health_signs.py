"""The signs of an iteration that goes wrong: what each figure says, on which side of its limit it should stay, what it may mean."""

from collections.abc import Mapping
from typing import NamedTuple

from eva_stages.core.config.health_config import Health, Sign
from eva_stages.core.stage import Check


class Meaning(NamedTuple):
    says: str
    """The figure in words."""
    at_most: bool
    """Whether the limit is an upper one."""
    advice: str
    """What may be behind it, and what may help."""


SIGNS: Mapping[Sign, Meaning] = {
    "length_drift": Meaning(
        "change of the answers' length against theta_0 (factor)",
        True,
        "the reward may pay for length; look at answers, take a reward that does not, or solver.loss.kind=simpo",
    ),
    "length_limited": Meaning(
        "share of answers cut at the length limit",
        True,
        "answers may not come to an end: raise policy.generator.max_new_tokens, or look at the end tokens that the model's "
        "generation_config.json and chat template name",
    ),
    "reward_hacking": Meaning(
        "fall of the judged win rate while the reward rose",
        True,
        "the policy may have learnt to please the reward and not the judge; look at answers with high rewards, or change the reward",
    ),
    "equal_responses": Meaning(
        "share of sampled answers that repeat another one",
        True,
        "the policy may have collapsed; lower solver.training.learning_rate or epochs, or raise policy.generator.temperature",
    ),
    "evolved_share": Meaning(
        "evolved prompts, as a share of those that creator.mix.evolved_share asks for,",
        False,
        "most evolutions may have been rejected, for the reasons that the summary counts; take a stronger creator.evolve.generator or "
        "another creator.evolve.method, raise creator.evolve.generations or creator.selection.fraction, or lower creator.mix.evolved_share",
    ),
    "seed_share": Meaning(
        "effective seeds per prompt",
        False,
        "evolution may go on from few seeds; raise creator.selection.fraction or lower creator.mix.evolved_share",
    ),
    "distinct_prompts": Meaning(
        "distinct trigrams of the prompts against the seeds",
        False,
        "evolved prompts may all be alike; lower creator.curate.near_duplicate, or take another evolver or method",
    ),
    "pair_share": Meaning(
        "pairs per prompt",
        False,
        "answers may be all equally good, so that there is little to learn from; evolve harder prompts, or sample more responses",
    ),
    "chosen_nll": Meaning(
        "growth of the chosen responses' negative log-likelihood (factor)",
        True,
        "training may push down what it should learn; raise solver.loss.nll_alpha, or lower solver.training.learning_rate",
    ),
    "kl": Meaning(
        "KL divergence from theta_0 (nats per answer)",
        True,
        "the policy may have drifted far; raise solver.loss.beta, lower solver.training.learning_rate, or set solver.reference=initial",
    ),
    "kl_per_token": Meaning(
        "KL divergence from theta_0 (nats per token)",
        True,
        "the policy may have drifted far; raise solver.loss.beta, lower solver.training.learning_rate, or set solver.reference=initial",
    ),
}


def checks(health: Health) -> tuple[Check, ...]:
    """The recipe's limits, as the stage that measures carries them."""
    limits = health.model_dump()
    return tuple(
        Check(name, limits[name], meaning.at_most, name in health.stop, meaning.says, meaning.advice, f"health.{name}")
        for name, meaning in SIGNS.items()
        if limits[name] is not None
    )
