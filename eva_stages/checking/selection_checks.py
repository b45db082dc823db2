"""Checks of the metric, the posterior and the archive against the rest of the recipe."""

from collections.abc import Iterator

from eva_stages.core.config.prompts_config import LettercraftPrompts, ReasoningGymPrompts
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.rewards_config import LettercraftNoisyReward, LettercraftReward, VerifierReward
from eva_stages.core.resolved import Resolved

PROMPTS_OF_CELLS = {"lettercraft": LettercraftPrompts, "reasoning_gym": ReasoningGymPrompts}
BINARY_REWARDS = "take a reward of 0 and 1 (kind lettercraft with exact=true, lettercraft_noisy, or a verifier)"


def _metric(recipe: Recipe, _: Resolved) -> Iterator[str]:
    creator = recipe.creator
    yield from _learnability(recipe, "creator.metric", creator.metric)
    if creator.training:
        yield from _learnability(recipe, "creator.training.metric", creator.training.metric)
    if creator.posterior and creator.metric != "learnability":
        yield (
            f"creator.posterior: is about the share of successes, which creator.metric={creator.metric} does not measure; "
            "set creator.metric=learnability, or remove creator.posterior"
        )


def _learnability(recipe: Recipe, place: str, metric: object) -> Iterator[str]:
    reward = recipe.reward
    is_binary = reward.exact if isinstance(reward, LettercraftReward) else isinstance(reward, LettercraftNoisyReward | VerifierReward)
    if metric == "learnability" and not is_binary:
        yield (
            f"{place}: learnability is p (1 - p) for rewards of 0 and 1, and rewards of kind {reward.kind} have other values; "
            f"{BINARY_REWARDS}, or {place}=spread_at_median"
        )


def _archive(recipe: Recipe, _: Resolved) -> Iterator[str]:
    creator = recipe.creator
    archive, analysis = creator.curate.archive, creator.analysis
    if archive is None:
        return
    place = "creator.curate.archive"
    if archive.cell == "topic_complexity" and not (analysis and analysis.scorer and analysis.topics):
        yield (
            f"{place}.cell: topic_complexity needs the prompts' topics and complexity; give creator.analysis.topics and "
            "creator.analysis.scorer, or another cell: lettercraft, reasoning_gym, or a function in a file, as in cells.py:name"
        )
    kind = PROMPTS_OF_CELLS.get(archive.cell)
    if kind is not None and not isinstance(recipe.prompts, kind):
        yield (
            f"{place}.cell: {archive.cell} finds cells of prompts of kind {archive.cell}, and prompts.kind is {recipe.prompts.kind}; give "
            "topic_complexity, or a function in a file, as in cells.py:name"
        )
    for name, default in (("kind", "weighted"), ("topic_share", 0.0)):
        if (value := getattr(creator.selection, name)) != default:
            yield f"creator.selection.{name}: {value} has no effect with {place}, which draws from cells; leave one of them out"
    if creator.evolve.feedback:
        yield (
            f"creator.evolve.feedback: shows responses to the prompt, and prompts that {place} draws from earlier sets have no new ones; "
            "remove one of them"
        )
    if creator.evolve.multi_shot and creator.curate.diversity:
        yield (
            f"creator.evolve.multi_shot: compares prompts by the embeddings of the current set, and {place} draws from all sets; "
            "remove creator.curate.diversity, so that they are compared by their words, or one of the two"
        )


SELECTION_CHECKS = (_metric, _archive)
