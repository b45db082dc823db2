"""The recipe's limits on failures, as limits of stages."""

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.failures import CALLS
from eva_stages.core.parts import FAILED_CALLS
from eva_stages.core.stage import Limit


def empty_limit(recipe: Recipe) -> Limit:
    """The recipe's limit on empty or missing responses."""
    advice = "check the chat template, policy.generator.max_new_tokens and the policy itself"
    return Limit("empty", "responses", recipe.limits.empty, "responses are empty or missing", advice, "limits.empty")


def unscored_limit(recipe: Recipe, counter: str = "unscored", total: str = "responses") -> Limit:
    """The recipe's limit on responses without a reward."""
    return Limit(counter, total, recipe.limits.unscored, "responses have no reward", "check the reward", "limits.unscored")


def failed_calls(role: str, share: float, place: str, field: str) -> Limit:
    """A limit on the failed calls of a generator (`role`: evolver, judge, ...), at `place` in the recipe."""
    return Limit(FAILED_CALLS, CALLS, share, f"{role} calls failed", f"check {place}", field)


def judging_limits(recipe: Recipe, place: str) -> tuple[Limit, Limit]:
    """The recipe's limits on a judge: failed calls, and judgments without a verdict."""
    advice = f"check that {place} is a model that follows the judge's format, and its max_new_tokens"
    verdicts = Limit("no_verdict", "judgments", recipe.limits.no_verdict, "judgments have no verdict", advice, "limits.no_verdict")
    return failed_calls("judge", recipe.limits.unjudged, place, "limits.unjudged"), verdicts
