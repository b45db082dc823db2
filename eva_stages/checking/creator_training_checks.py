"""Checks of `creator.training` against the rest of the recipe."""

from collections.abc import Iterator

from eva_stages.core.config.models_config import PolicyModel, TransformersModel, VLLMGenerator, VLLMModel
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.resolved import Resolved

PLACE = "creator.training"


def check_creator_training(recipe: Recipe, _: Resolved) -> Iterator[str]:
    """The creator can be trained: there are siblings to compare, and a network that eva can train."""
    training, evolve = recipe.creator.training, recipe.creator.evolve
    if training is None:
        return
    if recipe.creator.control:
        yield f"{PLACE}: creator.control `{recipe.creator.control}` evolves nothing, so there is nothing to train on; leave one of them out"
    if evolve.shape != "siblings":
        fix = f"give siblings, or leave {PLACE} out"
        yield f"creator.evolve.shape: is {evolve.shape}, and {PLACE} compares evolutions of the same prompt; {fix}"
    if evolve.generations < 2:
        yield f"creator.evolve.generations: is 1, and {PLACE} compares siblings; give at least 2"
    yield from _network(recipe)


def _network(recipe: Recipe) -> Iterator[str]:
    training, evolver = recipe.creator.training, recipe.creator.evolve.generator
    assert training is not None
    place = "creator.evolve.generator"
    if not isinstance(evolver, PolicyModel | TransformersModel | VLLMModel):
        yield (
            f"{place}.kind: {evolver.kind} is no network that eva can train; give transformers or vllm with a model, or policy with "
            f"{PLACE}.network shared or adapter, or leave {PLACE} out"
        )
        return
    if evolver.temperature == 0:
        yield f"{place}.temperature: is 0, so all siblings would be equal; give one above 0"
    is_policy = isinstance(evolver, PolicyModel)
    if training.network == "own" and is_policy:
        yield f"{PLACE}.network: `own` trains the model of {place}, which is the policy; give shared or adapter, or another generator"
    if training.network != "own" and not is_policy:
        fix = "give policy, or network own"
        yield f"{PLACE}.network: `{training.network}` trains the policy as evolver, and {place} is {evolver.kind}; {fix}"
    if training.network == "shared" and recipe.solver.training.start == "scratch":
        yield "solver.training.start: scratch would throw away what the creator has learned in the shared network; give incremental"
    for generator_place, generator in {place: evolver, "policy.generator": recipe.policy.generator if is_policy else None}.items():
        if isinstance(generator, VLLMGenerator) and generator.lora:
            yield f"{generator_place}.lora: {PLACE} would not train this adapter; merge it into the model, and leave lora out"
