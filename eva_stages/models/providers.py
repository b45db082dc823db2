"""The key that a provider's API is called with, found or missed before anything starts. Keys never stand in recipes or artifacts."""

import os

from eva_stages.core.errors import ConfigError

NO_KEY = "none"


def provider_key(model: str, api_base: str | None, variable: str | None, place: str) -> str | None:
    """The key to send; None where LiteLLM takes the provider's usual one from the environment.

    A server of one's own needs none, but the clients beneath insist on something.

    Args:
        model: LiteLLM's name.
        api_base: address of an OpenAI-compatible server, if the recipe gives one.
        variable: environment variable that holds the key, if the recipe names one.
        place: the recipe field, for errors.

    Raises:
        ConfigError: if there is no key where one is needed.
    """
    if variable is not None:
        if key := os.environ.get(variable):
            return key
        raise ConfigError([f"{place}.runtime.api_key_env: the environment variable {variable} is not set; export it with the key"])
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # the price list that is installed, not today's from the net
    import litellm

    missing = litellm.validate_environment(model)["missing_keys"]
    if missing and api_base is None:
        names = " and ".join(missing)
        raise ConfigError([f"{place}.model: {model} needs {names} in the environment; export it, or name a variable in api_key_env"])
    return NO_KEY if missing else None
