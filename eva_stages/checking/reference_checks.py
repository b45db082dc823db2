"""Checks of references: every verifier has one to check against, wherever it scores, and every evolver returns what it is asked for."""

import inspect
from collections.abc import Iterator

from eva_stages.checking.function_checks import imported_function
from eva_stages.checking.recipe_references import sections
from eva_stages.core.config.function_fields import VERIFIER, FunctionChoice, in_file
from eva_stages.core.config.models_config import FunctionEvolver, LettercraftModel, ReasoningGymModel
from eva_stages.core.config.prompts_config import FilePrompts, HubPrompts, LettercraftPrompts
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.rewards_config import VerifierReward
from eva_stages.core.config.solver_config import OnPolicyLoss
from eva_stages.core.errors import ConfigError
from eva_stages.core.prompt_references import PROMPT_AND_REFERENCE, VOTERS
from eva_stages.core.resolved import Resolved
from eva_stages.creator.knobs import OF_REFERENCES


def check_references(recipe: Recipe, resolved: Resolved) -> Iterator[str]:
    """Every verifier has references to check against, wherever it scores."""
    if recipe.evaluation.only:
        return
    has_references = has_seed_references(recipe)
    lacks_evolved = _scores_evolved(recipe) and not _evolver_returns_references(recipe)
    for place, reward in sections(recipe.reward, "reward"):
        if not isinstance(reward, VerifierReward):
            continue
        if reward.missing_reference:
            yield from _majority_faults(recipe, reward, place)
            continue
        builtin = not in_file(reward.function)
        if has_references:
            yield from unreadable_references(recipe, f"{place}.function", reward.function)
        elif builtin:
            advice = ", or missing_reference=majority" if reward.function in VOTERS else ""
            yield (
                f"{place}.function: {reward.function} checks responses against references, and the prompts have none; set "
                "prompts.reference_column to the column that holds them (prompts.kind=file or hub; lettercraft has "
                f"prompts.references){advice}"
            )
        if reward.function == "reasoning_gym" and _scores_evolved(recipe) and _writes_text(recipe):
            yield (
                f"{place}.function: reasoning_gym rebuilds the task in a reference, and creator.evolve.generator writes text; take the "
                "method turn_knob with the generator of kind reasoning_gym"
            )
        elif lacks_evolved and (
            builtin
            or (has_references and needs_reference(recipe, resolved, FunctionChoice(f"{place}.function", reward.function, VERIFIER)))
        ):
            advice = "" if builtin else ", or give the function's reference a default if it can score without one"
            if reward.function in VOTERS:
                advice = f", or set {place}.missing_reference=majority"
            yield (
                f"{place}.function: {reward.function} checks responses against references, and creator.evolve returns prompts without "
                "references, so that every response to an evolved prompt would have no reward; set creator.evolve.returns="
                f"{PROMPT_AND_REFERENCE}, or iterations=0, or creator.control to longer, human or no_evolve, or take a reward that needs "
                f"no references{advice}"
            )


def check_held_out_reference(recipe: Recipe, _: Resolved) -> Iterator[str]:
    """A reward that training never sees does not depend on what the policy answers."""
    reward = recipe.health.held_out_reward
    if isinstance(reward, VerifierReward) and reward.missing_reference:
        yield (
            "health.held_out_reward.missing_reference: a majority of the policy's own answers measures its agreement, not its success; "
            "leave it out"
        )


def unreadable_references(recipe: Recipe, place: str, function: str) -> Iterator[str]:
    """A built-in verifier can read the references of the prompts that eva makes itself."""
    kind = recipe.prompts.kind
    if kind in ("lettercraft", "reasoning_gym") and function in VERIFIER.names and function != kind:
        yield f"{place}: {function} cannot read the references of prompts of kind {kind}; take {kind}"


def has_seed_references(recipe: Recipe) -> bool:
    """Whether the seed prompts have references."""
    match prompts := recipe.prompts:
        case FilePrompts() | HubPrompts():
            return prompts.reference_column is not None
        case LettercraftPrompts():
            return prompts.references
        case _:
            return True


def _scores_evolved(recipe: Recipe) -> bool:
    """Whether any evolved prompt gets responses."""
    creator = recipe.creator
    return (
        recipe.iterations > 0
        and creator.control is None
        and (creator.mix.evolved_share > 0 or creator.curate.admit is not None or creator.training is not None)
    )


def _evolver_returns_references(recipe: Recipe) -> bool:
    evolve = recipe.creator.evolve
    return evolve.method in OF_REFERENCES or evolve.returns == PROMPT_AND_REFERENCE


def _writes_text(recipe: Recipe) -> bool:
    return not isinstance(recipe.creator.evolve.generator, ReasoningGymModel | FunctionEvolver)


def _majority_faults(recipe: Recipe, reward: VerifierReward, place: str) -> Iterator[str]:
    """The final answers can be compared, and the n responses to a prompt are scored together."""
    if reward.function not in VOTERS:
        yield (
            f"{place}.missing_reference: a majority compares the final answers of responses, which only {' and '.join(VOTERS)} can read, "
            f"and the function is {reward.function}; leave missing_reference out, or take function {VOTERS[0]}"
        )
    if isinstance(recipe.solver.loss, OnPolicyLoss):
        yield (
            f"{place}.missing_reference: {recipe.solver.loss.kind} scores every response by itself, so that there is no majority; leave it "
            "out, or take another solver.loss"
        )
    if recipe.solver.rewrite:
        yield (
            f"{place}.missing_reference: a rewritten response is scored by itself, so that there is no majority; leave solver.rewrite or "
            "missing_reference out"
        )


def check_evolver(recipe: Recipe, _: Resolved) -> Iterator[str]:
    """The settings of `creator.evolve` fit the evolver."""
    evolve = recipe.creator.evolve
    if evolve.method == "verbatim" and isinstance(evolve.generator, LettercraftModel):
        yield (
            "creator.evolve.method: verbatim sends the prompt without a request to evolve it, and a generator of kind lettercraft would "
            "respond to it; take evol_instruct, or a model that was trained to rewrite prompts, as in lettercraft/trained_creator"
        )
    if isinstance(evolve.generator, FunctionEvolver):
        if evolve.method != type(evolve).model_fields["method"].default:
            yield (
                f"creator.evolve.method: is {evolve.method}, and a generator of kind function uses no method; leave method out, or take "
                "another generator"
            )
        if evolve.feedback or evolve.multi_shot:
            yield "creator.evolve: a generator of kind function reads neither feedback nor examples; leave feedback and multi_shot out"


def needs_reference(recipe: Recipe, resolved: Resolved, choice: FunctionChoice) -> bool:
    """Whether the third parameter of a verifier has no default: a function that has one can score without a reference."""
    if choice.choice not in resolved.functions:
        return False
    try:
        function = imported_function(recipe, resolved, choice)
        parameters = list(inspect.signature(function).parameters.values())
    except ConfigError:  # reported by `check_functions`
        return False
    except (ValueError, TypeError):
        return True
    third = parameters[2:3] or parameters[-1:]
    return not third or third[0].default is inspect.Parameter.empty
