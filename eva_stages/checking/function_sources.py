"""Functions that a recipe names in files: which there are, that they may be imported, and copies of their sources for who reads the run."""

from eva_stages.core.config.paths import BUILT_IN
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.rewards_config import EnsembleReward, VerifierReward
from eva_stages.core.errors import ConfigError
from eva_stages.core.named_functions import SOURCES, NamedFunction, resolve_function
from eva_stages.core.run_folder import Run


def named_functions(recipe: Recipe) -> list[NamedFunction]:
    """The functions in files that a recipe names."""
    rewards = [member.reward for member in recipe.reward.members] if isinstance(recipe.reward, EnsembleReward) else [recipe.reward]
    specs = [reward.function for reward in rewards if isinstance(reward, VerifierReward) and reward.function not in BUILT_IN]
    return [resolve_function(spec, "reward.function") for spec in specs]


def check_consent(function: NamedFunction, recipe: Recipe, place: str) -> None:
    """Raises:
    ConfigError: unless the recipe allows code of its own to be imported.
    """
    if not recipe.trust_code:
        raise ConfigError(
            [
                f"{place}: {function.name} is code in {function.file}, which may do anything once it is imported; read it, then give "
                "--trust, or set trust_code: true in the recipe"
            ]
        )


def save_sources(recipe: Recipe, run: Run) -> None:
    """Copy the sources of a recipe's functions into the run's folder."""
    for function in named_functions(recipe):
        for name, content in function.sources.items():
            path = run.root / SOURCES / function.digest / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
