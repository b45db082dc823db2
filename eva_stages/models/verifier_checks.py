"""Sample calls of the functions that a recipe names as verifier or as a benchmark's score."""

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.errors import DataError
from eva_stages.core.failures import error_reason
from eva_stages.models.rewards import Verifier, as_score, finite


def check_verifier(function: Verifier, recipe: Recipe, in_unit: bool = False) -> None:
    """Score a response to a prompt with a reference.

    Raises:
        DataError: if the function returns no number, or an error in it shows. What else it raises may be due to the sample.
    """
    try:
        value = function([{"role": "user", "content": "What is 2 + 2?"}], "4", "4")
    except (NameError, AttributeError, TypeError, ImportError, SystemExit) as error:
        raise DataError(f"the function raised {error_reason(error)}") from error
    except Exception:
        return
    if value is not None and (reason := finite(as_score(value, in_unit)).failure):
        raise DataError(reason)


def check_scorer(function: Verifier, recipe: Recipe) -> None:
    """As `check_verifier`, for a number from 0 to 1."""
    check_verifier(function, recipe, in_unit=True)
