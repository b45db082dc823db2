"""One tree of errors; every leaf is also the standard type it refines, so that callers may catch either."""


class EvaError(Exception):
    """Anything eva reports to a person in its own words."""


class ConfigError(EvaError, ValueError):
    """A recipe or an argument is wrong. `faults` holds every fault found, each with its place and its fix."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        super().__init__("\n".join(faults))


class MissingKeyError(ConfigError):
    """A provider's key is not in the environment: all that is lacking for the money to be spent."""


class DataError(EvaError, ValueError):
    """An input file or an artifact does not hold what it should."""


class DamagedError(DataError):
    """A finished artifact is not what was committed; `--repair` puts it aside and makes it anew."""


class LockedError(EvaError, BlockingIOError):
    """Another process works on the same run."""


class StageError(EvaError, RuntimeError):
    """A stage failed; what it had written stays in its work folder and the next attempt goes on from there."""


class HubError(EvaError, ConnectionError):
    """The Hub cannot be reached, or refuses; what has been uploaded stays there and the next attempt goes on from it."""


def hub_failures() -> tuple[type[Exception], ...]:
    """What the Hub's client raises where the Hub cannot be reached and its cache does not have the file either."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    return LocalEntryNotFoundError, HfHubHTTPError, httpx.HTTPError, OSError
