"""Checks of the held-out reward and of the repeated judgments that a recipe asks for."""

from collections.abc import Iterator

from eva_stages.checking.reference_checks import has_seed_references, needs_reference, unreadable_references
from eva_stages.core.config.evaluation_config import JudgedBenchmark, Lettercraft
from eva_stages.core.config.function_fields import VERIFIER, FunctionChoice, in_file
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.rewards_config import EnsembleReward, LocalReward, OneReward, PairwiseReward, VerifierReward
from eva_stages.core.resolved import Resolved
from eva_stages.core.terminal import note


def check_health(recipe: Recipe, resolved: Resolved) -> Iterator[str]:
    """What `health` measures beside its limits can be measured."""
    yield from _held_out_reward(recipe)
    yield from _held_out_references(recipe, resolved)
    benchmarks = recipe.evaluation.benchmarks
    if recipe.health.judge_repeats and not any(isinstance(benchmark, Lettercraft | JudgedBenchmark) for benchmark in benchmarks):
        yield (
            f"health.judge_repeats: {recipe.health.judge_repeats} questions are to be judged again, and evaluation.benchmarks has no "
            "judged benchmark; add one (lettercraft, arena_hard, alpaca_eval or mt_bench), or set health.judge_repeats=0"
        )
    needs = {
        "reward_divergence": ("health.held_out_reward", recipe.health.held_out_reward),
        "judge_kappa": ("health.judge_repeats", recipe.health.judge_repeats),
        "gate_rate": ("creator.curate.gate", recipe.creator.curate.gate),
        **dict.fromkeys(("vendi_share", "cluster_share", "nearest_distance"), ("creator.analysis.coverage", _has_coverage(recipe))),
    }
    for name, (field, value) in needs.items():
        if name in recipe.health.stop and not value:
            yield f"health.stop: {name} is measured only with {field}; set {field}, or leave {name} out"
    if recipe.evaluation.only:
        fields = {"held_out_reward": recipe.health.held_out_reward, "judge_repeats": recipe.health.judge_repeats}
        for name in (name for name, value in fields.items() if value):
            yield f"health.{name}: evaluation.only=true trains nothing, so no health is measured; leave health.{name} out"


def _held_out_reward(recipe: Recipe) -> Iterator[str]:
    held_out_reward, reward = recipe.health.held_out_reward, recipe.reward
    if held_out_reward is None:
        return
    training_rewards: list[OneReward] = [member.reward for member in reward.members] if isinstance(reward, EnsembleReward) else [reward]
    if _scorer(held_out_reward) in map(_scorer, training_rewards):
        yield f"health.held_out_reward: training sees this reward (kind {held_out_reward.kind}); give one that reward does not name"
    if not recipe.health.answers and not _has_lettercraft(recipe):
        yield (
            "health.held_out_reward: there are no responses for it to score, because health.answers=0 and the recipe has no Lettercraft "
            "evaluation; set health.answers=256, or leave health.held_out_reward out"
        )
    if isinstance(reward, EnsembleReward | PairwiseReward):
        if "reward_divergence" in recipe.health.stop:
            yield (
                f"health.stop: rewards of kind {reward.kind} have no level that can be compared between iterations, so reward_divergence "
                "is not measured; leave it out"
            )
        note(
            f"health.held_out_reward: rewards of kind {reward.kind} have no level that can be compared between iterations, so health "
            "reports the held-out reward alone, and no reward_divergence"
        )


def _scorer(reward: OneReward) -> object:
    """What two equal rewards have in common: of a reward model its checkpoint, whatever its other settings."""
    return (reward.model, reward.revision) if isinstance(reward, LocalReward) else reward


def _held_out_references(recipe: Recipe, resolved: Resolved) -> Iterator[str]:
    """A held-out verifier has references: it scores responses to seed prompts, or to the questions of a Lettercraft evaluation."""
    reward, place = recipe.health.held_out_reward, "health.held_out_reward.function"
    if not isinstance(reward, VerifierReward):
        return
    name = reward.function
    if in_file(name) and not needs_reference(recipe, resolved, FunctionChoice(place, name, VERIFIER)):
        return
    if has_seed_references(recipe) and (recipe.prompts.kind == "lettercraft" or not _has_lettercraft(recipe)):
        yield from unreadable_references(recipe, place, name)
    elif _has_lettercraft(recipe):
        yield (
            f"{place}: {name} needs references, and the questions of the Lettercraft evaluation have none; take kind lettercraft, or set "
            "prompts.references=true (prompts.kind=lettercraft)"
        )
    else:
        yield (
            f"{place}: {name} needs references, and the prompts have none; set prompts.reference_column to the column that holds them "
            "(prompts.kind=file or hub), or take a reward that needs no references"
        )


def _has_lettercraft(recipe: Recipe) -> bool:
    return any(isinstance(benchmark, Lettercraft) for benchmark in recipe.evaluation.benchmarks)


def _has_coverage(recipe: Recipe) -> bool:
    return recipe.creator.analysis is not None and recipe.creator.analysis.coverage
