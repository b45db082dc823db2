"""What commands do with a recipe before they run it, each in one call."""

from typing import Any

from eva_stages.api.preparing import prepare
from eva_stages.checking.resolution import resolve
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.rounds import Iteration
from eva_stages.core.run_folder import Run
from eva_stages.planning.plan_document import plan_document
from eva_stages.planning.rates import Rates
from pipelines.iteration import iterations


def build_rounds(recipe: Recipe) -> list[Iteration]:
    """The stages of a recipe."""
    return iterations(recipe, resolve(recipe))


def check(recipe: Recipe, keys: bool = True) -> list[str]:
    """The notes about a recipe; raises ConfigError with all errors."""
    return prepare(recipe, None, keys).notes


def plan_of(recipe: Recipe, run: Run, rates: Rates | None = None) -> dict[str, Any]:
    """The document of a plan."""
    resolved = resolve(recipe, run)
    return plan_document(recipe, resolved, iterations(recipe, resolved), run, rates)
