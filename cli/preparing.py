"""From a recipe to its stages, for every command that needs them: resolve, check, build. All errors at once."""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from eva_stages.core.config.recipe import Recipe
    from eva_stages.core.resolved import Resolved
    from eva_stages.core.rounds import Iteration
    from eva_stages.core.run_folder import Run


class Prepared(NamedTuple):
    """A recipe that can run."""

    resolved: "Resolved"
    rounds: "list[Iteration]"
    notes: list[str]
    """What is missing that only spending money needs, and what asking servers cost."""


def prepare(recipe: "Recipe", run: "Run | None" = None, keys: bool = True, online: bool = False) -> Prepared:
    """Everything that can be known before a stage runs.

    Args:
        run: where the run is to be.
        keys: providers' keys have to be there too; a plan costs nothing and needs none, and has the missing ones among its notes.
        online: ask every server of the recipe one question, which needs keys and costs next to nothing.

    Raises:
        ConfigError: with every model, file, function and setting that is missing or does not fit, or every server that does not answer.
    """
    from eva_stages.checking.provider_checks import ask_servers, missing_keys
    from eva_stages.checking.recipe_checks import recipe_errors
    from eva_stages.checking.resolution import resolve
    from eva_stages.core.cluster import check_row_stages
    from eva_stages.core.errors import ConfigError
    from eva_stages.core.stage import closure
    from pipelines.iteration import iterations

    resolved = resolve(recipe, run)
    errors, missing = recipe_errors(recipe, resolved), list(missing_keys(recipe))
    if recipe.publish is not None:
        from eva_stages.publishing.account_checks import account_errors

        missing += account_errors(recipe, online)
    if keys or online:
        errors += missing
    if errors:
        raise ConfigError(list(dict.fromkeys(errors)))
    rounds = iterations(recipe, resolved)
    check_row_stages(recipe.runtime.engine, closure([stage for iteration in rounds for stage in iteration.stages]))
    return Prepared(resolved, rounds, [*missing, *(ask_servers(recipe) if online else [])])
