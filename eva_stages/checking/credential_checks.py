"""A recipe is stored with its run and published, so it must not contain secrets."""

import re
from collections.abc import Iterator
from typing import Any

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.redaction import Secrets, known_secrets, secrets, single_secret
from eva_stages.core.resolved import Resolved

FIX = "Recipes are stored and published, so remove it, put it into an environment variable and name that variable in runtime.api_key_env"
USER_IN_URL = re.compile(r"//[^/\s\"'<>\\]+@")


def check_credentials(recipe: Recipe, _: Resolved) -> Iterator[str]:
    """No key or value of a recipe is a credential; an error names its place and does not show it."""
    secret_values = secrets()
    for place, text in _texts(recipe.model_dump(mode="json"), ()):
        if secret_values.redact(text) != text:
            yield f"{secret_values.redact(place)}: {_credential_kind(text, secret_values)}. {FIX}"


def _credential_kind(text: str, secret_values: Secrets) -> str:
    """What kind of credential a text contains."""
    if USER_IN_URL.search(text):
        return "is a URL with a user or a password"
    if secret_values.hide(text) != text:
        names = [name for name, value in known_secrets() if single_secret(value).hide(text) != text]
        return f"contains the value of {', '.join(dict.fromkeys(names)) or 'an environment variable'}, or a part of it"
    return "contains what looks like a key or a password"


def _texts(value: Any, place: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Every key and text of a recipe with its place."""
    match value:
        case dict():
            for key, item in value.items():
                yield ".".join(place) or "recipe", str(key)
                yield from _texts(item, (*place, str(key)))
        case list():
            for index, item in enumerate(value):
                yield from _texts(item, (*place, str(index)))
        case str():
            yield ".".join(place), value
