"""What commands do with a recipe before they run it, in one call each."""

from typing import Any

from eva_stages.checking import recipe_checks
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.rounds import Iteration
from eva_stages.core.run_folder import Run
from eva_stages.planning.plan_document import plan_document
from eva_stages.planning.rates import Rates
from pipelines.iteration import iterations


def built(recipe: Recipe) -> list[Iteration]:
    """The stages of a recipe."""
    return iterations(recipe)


def check(recipe: Recipe, keys: bool = True, online: bool = False) -> list[str]:
    """The notes about a recipe; raises ConfigError with all errors."""
    return recipe_checks.check(recipe, keys, online)


def planned(recipe: Recipe, run: Run, rates: Rates | None = None) -> dict[str, Any]:
    """The document of a plan."""
    return plan_document(recipe, built(recipe), run, rates)
