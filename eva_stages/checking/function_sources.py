"""Functions in files that a recipe names: their sources, and copies of them for whoever reads the run."""

from eva_stages.core.config.function_fields import function_choices, in_file
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.named_functions import SOURCES, NamedFunction, resolve_function
from eva_stages.core.run_folder import Run


def named_functions(recipe: Recipe) -> list[NamedFunction]:
    """The functions in files that a recipe names."""
    return [resolve_function(choice, place) for place, choice, _ in function_choices(recipe) if in_file(choice)]


def save_sources(recipe: Recipe, run: Run) -> None:
    """Copy the sources of a recipe's functions into the run's folder."""
    for function in named_functions(recipe):
        for name, content in function.sources.items():
            path = run.root / SOURCES / function.digest / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
