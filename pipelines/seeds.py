"""Seeds of stages: derived from the recipe's seed only where something is sampled, so that recipes of all seeds share the rest."""

from eva_stages.core.config.models_config import TransformersGenerator, VLLMGenerator
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.stage import Use

LOCAL = (TransformersGenerator.target, VLLMGenerator.target)
"""Generators whose responses at temperature 0 depend on no seed."""


def sampling_seed(recipe: Recipe, generator: Use, *parts: str | int) -> dict[str, int]:
    """The argument `seed` of a step that calls a generator; none if the generator decodes greedily."""
    greedy = generator.target in LOCAL and generator.arguments.get("temperature") == 0
    return {} if greedy else {"seed": derive_seed(recipe.seed, *parts)}
