"""The date of a run, which chat templates are given as today's: a rerun on another day asks what the first day asked."""

import datetime

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.errors import ConfigError
from eva_stages.core.recipe_files import load_recipe
from eva_stages.core.run_folder import Run


def dated(recipe: Recipe, run: Run) -> Recipe:
    """The recipe with a date: its own, or the one recorded in the run's folder, or today's."""
    if recipe.runtime.date is not None:
        return recipe
    runtime = recipe.runtime.model_copy(update={"date": _recorded(run) or datetime.date.today()})
    return recipe.model_copy(update={"runtime": runtime})


def _recorded(run: Run) -> datetime.date | None:
    path = run.root / "recipe.yaml"
    try:
        return load_recipe(str(path)).runtime.date if path.is_file() else None
    except ConfigError:  # of another version of eva; what is wrong with it is not this command's business
        return None
