"""Whether a recipe that publishes can do so."""

from collections.abc import Iterator

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.errors import ConfigError, HubError
from eva_stages.core.terminal import note
from eva_stages.publishing.hub import Hub


def account_errors(recipe: Recipe, online: bool) -> Iterator[str]:
    """What keeps a recipe from being published under its account.

    Args:
        online: a Hub that cannot be reached is an error; else it is a note, as the run goes on without it.
    """
    if recipe.publish is None:
        return
    try:
        Hub(note).check_account(recipe.publish.to)
    except ConfigError as error:
        yield from (f"publish: {fault}" for fault in error.faults)
    except HubError as error:
        if online:
            yield f"publish: {error}; the run would go on without it"
        else:
            note(f"publish: {error}; the run goes on, and is pushed after the first iteration that finds the Hub")
