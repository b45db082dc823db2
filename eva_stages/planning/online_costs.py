"""What the calls of an interval of online training cost beside the policy's: evolver, critic, gate and judging reward."""

from eva_stages.core.config.models_config import Sampling
from eva_stages.core.config.recipe import Recipe
from eva_stages.planning.gate_costs import PROMPT, VERDICT, gate_cost
from eva_stages.planning.judge_costs import JudgeCost, cost_of_calls
from eva_stages.planning.online_sizes import interval_calls, interval_models, interval_size

META = 500
"""Tokens of the instructions in a request, without the prompts and responses in it."""
RATING = 10
"""Tokens of a rating, for the expected cost."""


def interval_money(recipe: Recipe, iteration: int) -> dict[str, float | None]:
    """The money for an interval, at most (`usd`) and expected (`usd_expected`); None without a price."""
    costs = _costs(recipe, iteration)
    return {"usd": _sum([cost.usd for cost in costs]), "usd_expected": _sum([cost.expected_usd for cost in costs])}


def _sum(amounts: list[float | None]) -> float | None:
    known_amounts = [amount for amount in amounts if amount is not None]
    return sum(known_amounts) if len(known_amounts) == len(amounts) else None


def _costs(recipe: Recipe, iteration: int) -> list[JudgeCost]:
    """The cost of the calls of each model. At most: texts are as long as the recipe lets them be, a token a character."""
    calls, longest = interval_calls(recipe, iteration), recipe.creator.evolve.max_characters
    response, short = recipe.policy.generator.max_new_tokens, min(PROMPT, recipe.creator.evolve.max_characters)
    shown_responses = 2 if recipe.creator.evolve.feedback else 0
    tokens = {  # read at most, read as expected, written as expected
        "rewards": (META + longest + response, META + short + min(PROMPT, response), RATING),
        "evolver": (META + longest + shown_responses * response, META + short + shown_responses * min(PROMPT, response), PROMPT),
        "critic": (META + longest + 2 * response, META + short + 2 * min(PROMPT, response), VERDICT),
    }
    costs = []
    for name, model in interval_models(recipe):
        count = calls.get(name, 0)
        if name == "gate" and count and recipe.creator.curate.gate:
            costs.append(gate_cost(recipe.creator.curate.gate, interval_size(recipe, iteration).evolutions, longest))
        elif count and isinstance(model, Sampling):
            input_limit, expected_input, reply = tokens[name]
            limits = (count * input_limit, count * model.max_new_tokens), (count * expected_input, count * min(reply, model.max_new_tokens))
            costs.append(cost_of_calls(model, count, *limits))
    return costs
