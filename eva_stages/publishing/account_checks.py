"""Whether a recipe that publishes can do so."""

from collections.abc import Iterator

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.errors import ConfigError, HubError
from eva_stages.core.resolved import Resolved
from eva_stages.core.terminal import note


def account_errors(recipe: Recipe, _: Resolved) -> Iterator[str]:
    """Why a recipe cannot be published. A Hub that cannot be reached is only noted, as the run continues without it."""
    try:
        yield from _refusals(recipe)
    except HubError as error:
        note(f"publish: {error}; the run continues, and is pushed after the first iteration that reaches the Hub")


def online_account_errors(recipe: Recipe, _: Resolved) -> Iterator[str]:
    """Why a recipe cannot be published now."""
    try:
        yield from _refusals(recipe)
    except HubError as error:
        yield f"publish: {error}; the run would continue without it"


def _refusals(recipe: Recipe) -> Iterator[str]:
    if recipe.publish is None:
        return
    from eva_stages.publishing.hub import Hub

    try:
        Hub(note).check_account(recipe.publish.to)
    except ConfigError as error:
        yield from (f"publish: {fault}" for fault in error.faults)
