"""From a recipe to its stages, for every command that needs them: resolve, check, build. All errors at once."""

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from eva_stages.core.config.recipe import Recipe
    from eva_stages.core.resolved import Resolved
    from eva_stages.core.rounds import Iteration
    from eva_stages.core.run_folder import Run
    from eva_stages.core.study_files import LoadedStudy


class PreparedRecipe(NamedTuple):
    """A recipe that can run."""

    resolved: "Resolved"
    rounds: "list[Iteration]"
    notes: list[str]
    """Missing keys and accounts, which only spending money or publishing needs."""


def prepare(
    recipe: "Recipe", run: "Run | None" = None, keys: bool = True, online: bool = False, known_sources: dict[Any, Any] | None = None
) -> PreparedRecipe:
    """Everything that can be known before a stage runs.

    Args:
        run: where the run is to be.
        keys: a missing key or account is an error; False (for a plan, which costs nothing) makes it a note.
        online: the Hub has to be reachable where the recipe publishes.
        known_sources: see `resolve`.

    Raises:
        ConfigError: with every model, file, function and setting that is missing or does not fit.
    """
    from eva_stages.checking.provider_checks import missing_keys
    from eva_stages.checking.recipe_checks import CHECKS, errors_of
    from eva_stages.checking.resolution import resolve
    from eva_stages.core.cluster import check_row_stages
    from eva_stages.core.errors import ConfigError
    from eva_stages.core.rounds import stages_of
    from eva_stages.publishing.account_checks import account_errors, online_account_errors
    from pipelines.iteration import iterations

    resolved = resolve(recipe, run, known_sources)
    errors = [*resolved.errors, *errors_of(recipe, resolved, CHECKS)]
    missing = errors_of(recipe, resolved, (missing_keys, online_account_errors if online else account_errors))
    if keys or online:
        errors += missing
    if errors:
        raise ConfigError(list(dict.fromkeys(errors)))
    rounds = iterations(recipe, resolved)
    check_row_stages(recipe.runtime.engine, stages_of(rounds))
    return PreparedRecipe(resolved, rounds, missing)


def validation_notes(recipe: "Recipe | LoadedStudy", online: bool) -> list[str]:
    """Check a recipe, or all arms of a study, and everything named there; returns notes.

    Args:
        online: ask every server one question, under its key.

    Raises:
        ConfigError: with every error.
    """
    from eva_stages.api.run_places import RUNS
    from eva_stages.api.study_preparing import prepare_study
    from eva_stages.checking.provider_checks import ask_servers
    from eva_stages.core.study_files import LoadedStudy

    if isinstance(recipe, LoadedStudy):
        recipes = list(recipe.recipes.values())
        notes = prepare_study(recipe, RUNS / recipe.name, online=online).notes
    else:
        recipes = [recipe]
        notes = prepare(recipe, online=online).notes
    answers = [text for checked_recipe in recipes if online for text in ask_servers(checked_recipe)]
    return list(dict.fromkeys([*notes, *answers]))
