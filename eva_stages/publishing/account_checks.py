"""Whether a recipe that publishes can do so."""

from collections.abc import Iterator

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.errors import ConfigError, HubError
from eva_stages.core.resolved import Resolved
from eva_stages.core.terminal import note


def account_errors(recipe: Recipe, _: Resolved) -> Iterator[str]:
    """What keeps a recipe from being published. A Hub that cannot be reached is a note, as the run goes on without it."""
    try:
        yield from _refusals(recipe)
    except HubError as error:
        note(f"publish: {error}; the run goes on, and is pushed after the first iteration that finds the Hub")


def online_account_errors(recipe: Recipe, _: Resolved) -> Iterator[str]:
    """What keeps a recipe from being published now."""
    try:
        yield from _refusals(recipe)
    except HubError as error:
        yield f"publish: {error}; the run would go on without it"


def _refusals(recipe: Recipe) -> Iterator[str]:
    if recipe.publish is None:
        return
    from eva_stages.publishing.hub import Hub

    try:
        Hub(note).check_account(recipe.publish.to)
    except ConfigError as error:
        yield from (f"publish: {fault}" for fault in error.faults)
