"""Checks of mode online against the rest of the recipe: choices that have no meaning while prompts evolve inside training are errors."""

from collections.abc import Iterator

from eva_stages.core.config.models_config import PolicyModel, VLLMGenerator, VLLMModel
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.section import Section
from eva_stages.core.config.solver_config import ON_POLICY_LOSSES
from eva_stages.core.resolved import Resolved

Rule = tuple[str, bool, str]
"""A field, whether it breaks the rule, and what is wrong with it and what to do."""


def check_online(recipe: Recipe, _: Resolved) -> Iterator[str]:
    """The recipe has an `online` section in mode online only, and nothing in it contradicts the mode."""
    if recipe.mode == "offline":
        if recipe.online:
            yield "online: has an effect only with mode online; set mode=online, or leave it out"
        return
    if recipe.online is None:
        yield "online: is missing, and mode online needs it; give online.interval, the optimiser steps of an iteration"
        return
    for field, is_broken, advice in (*_solver_rules(recipe), *_creator_rules(recipe), *_size_rules(recipe)):
        if is_broken:
            yield f"{field}: {advice}"
    yield from _engines(recipe)


def _solver_rules(recipe: Recipe) -> Iterator[Rule]:
    solver = recipe.solver
    yield (
        "solver.loss.kind",
        solver.loss.kind not in ON_POLICY_LOSSES,
        f"is {solver.loss.kind}, and mode online trains on responses that it samples itself; give {', '.join(ON_POLICY_LOSSES)}",
    )
    yield (
        "solver.reference",
        solver.reference == "previous",
        "is previous, and mode online is one training, whose reference is the base policy; leave it out",
    )
    yield (
        "solver.training.epochs",
        _is_changed(solver.training, "epochs"),
        f"has no effect in mode online, where online.interval is the length of an iteration; {_unset(solver.training, 'epochs')}",
    )


def _creator_rules(recipe: Recipe) -> Iterator[Rule]:
    creator, evolve, curate = recipe.creator, recipe.creator.evolve, recipe.creator.curate
    yield (
        "creator.control",
        creator.control == "longer",
        "`longer` is training on the seed prompts alone, which is online.buffer.share=0 with creator.control=no_evolve",
    )
    yield (
        "creator.responses",
        creator.responses != recipe.solver.responses and _is_changed(creator, "responses"),
        f"is {creator.responses}, and mode online weighs prompts by the solver.responses={recipe.solver.responses} that it trains on; "
        f"leave it out, or give {recipe.solver.responses} where a recipe that is extended sets it",
    )
    yield (
        "creator.evolve.shape",
        evolve.shape == "chain" and evolve.generations > 1 and creator.control is None,
        "is chain, and mode online evolves every prompt only once; give siblings",
    )
    of_sets = {
        "creator.posterior": creator.posterior,
        "creator.selection.topic_share": creator.selection.topic_share,
        "creator.evolve.multi_shot": evolve.multi_shot,
        "creator.curate.diversity": curate.diversity,
        "creator.curate.novelty": curate.novelty,
        "creator.curate.archive": curate.archive,
        "creator.curate.admit": curate.admit,
        "creator.training": creator.training,
    }
    for field, choice in of_sets.items():
        yield field, bool(choice), "compares complete prompt sets, and in mode online there are none; leave it out, or use mode offline"
    of_mixture = "has no effect in mode online, where online.buffer.share is the share of the buffer"
    evolved_share = _unset(creator.mix, "evolved_share")
    yield "creator.mix.evolved_share", _is_changed(creator.mix, "evolved_share"), f"{of_mixture}; {evolved_share}"
    yield "creator.replay", creator.replay is not None, f"{of_mixture}; leave it out, or give null"


def _size_rules(recipe: Recipe) -> Iterator[Rule]:
    assert recipe.online is not None
    buffer, fraction, lag = recipe.online.buffer, recipe.creator.selection.fraction, recipe.online.lag
    prompts = recipe.solver.training.batch_size // recipe.solver.responses
    of_step = f"of the {prompts} prompts of a step (solver.training.batch_size / solver.responses)"
    yield (
        "online.buffer.share",
        buffer.share > 0 and round(buffer.share * prompts) == 0,
        f"{buffer.share} {of_step} is less than one; give 0, at least {1 / max(1, prompts):.3g}, or larger steps",
    )
    yield (
        "online.buffer.share",
        buffer.share == 0 and recipe.creator.control != "no_evolve",
        f"is 0, so that no step trains on {'fresh' if recipe.creator.control else 'evolved'} prompts; give a share above 0, or "
        "creator.control=no_evolve, which trains on the seed prompts alone",
    )
    yield (
        "online.buffer.size",
        buffer.size < round(buffer.share * prompts) and recipe.creator.control != "human",
        f"is {buffer.size}, and a step draws {round(buffer.share * prompts)} prompts from it (online.buffer.share); give a larger size",
    )
    yield (
        "creator.selection.fraction",
        recipe.creator.control is None and round(fraction * prompts) == 0,
        f"{fraction} {of_step} is less than one; give at least {1 / max(1, prompts):.3g}, or larger steps",
    )
    yield (
        "online.lag",
        lag > 0 and recipe.creator.control is not None,
        f"is {lag}, and creator.control `{recipe.creator.control}` evolves nothing that could lag; leave it out",
    )


def _engines(recipe: Recipe) -> Iterator[str]:
    """The evolver, its critic and the gate's judge run in the training process, where a vLLM engine would take the GPU from training."""
    creator = recipe.creator
    feedback, gate = creator.evolve.feedback, creator.curate.gate
    models = {
        "creator.evolve.generator": creator.evolve.generator,
        "creator.evolve.feedback.critic": feedback and feedback.critic,
        "creator.curate.gate.judge": gate and gate.judge,
    }
    for place, model in models.items():
        if isinstance(model, VLLMModel) or (isinstance(model, PolicyModel) and isinstance(recipe.policy.generator, VLLMGenerator)):
            yield (
                f"{place}.kind: {model.kind} is a vLLM engine here, which cannot run inside training; start a server (vllm serve) and give "
                "kind litellm with its api_base, or take kind transformers"
            )
    if gate and gate.audit:
        yield "creator.curate.gate.audit: samples the verdicts of a complete set, and in mode online there is none; leave it out"


def _is_changed(section: Section, name: str) -> bool:
    return bool(getattr(section, name) != type(section).model_fields[name].default)


def _unset(section: Section, name: str) -> str:
    """How to undo a choice. A field that a recipe inherits by `extends` cannot be left out."""
    return f"leave it out, or give its default, {type(section).model_fields[name].default}, where a recipe that is extended sets it"
