"""Calls of the creator's functions: metrics, selections, evolve methods, evolvers and filters, eva's own and those of a recipe.

The result of every call is checked, so that a wrong function stops its stage, or leaves its row null, with the reason. Each `check_*` calls
a function with a sample; `eva validate` calls them before anything runs.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.decoding import short
from eva_stages.core.errors import DataError
from eva_stages.core.failures import CALL_ERRORS, error_reason
from eva_stages.core.generating import COSTS
from eva_stages.core.rows import Message
from eva_stages.creator.conversations import SURROGATE

Metric = Callable[[np.ndarray], np.ndarray]
Selection = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
Method = Callable[[str, np.random.Generator], tuple[str, str]]
Evolver = Callable[[str, str | None, np.random.Generator], tuple[str, str | None, str] | None]
Filter = Callable[[str], str | None]
CellFunction = Callable[[list[Message], str | None], str]
COUNTS = ("evolved", "kept", "steps", "output_tokens", *COSTS)
"""Names of other counts in a manifest, which are no reasons."""
LONGEST_REASON = 60
LONGEST_CELL = 200


def metric_values(metric: Metric, rewards: np.ndarray) -> np.ndarray:
    """The values of a metric, NaN where a reward is missing.

    Raises:
        DataError: if the metric raises, or does not return one finite number per prompt.
    """
    is_scored = np.isfinite(rewards).all(axis=1)
    values = np.full(len(rewards), np.nan)
    if is_scored.any():
        values[is_scored] = _finite_values(metric, rewards[is_scored])
    return values


def check_metric(metric: Metric, recipe: Recipe) -> None:
    """Compute a metric for more prompts than there are responses; the rewards of the second one are equal, as they often are."""
    responses = recipe.creator.responses
    rewards = np.linspace(-1, 2, (responses + 4) * responses).reshape(-1, responses)
    rewards[1] = 0
    _check_equal(_finite_values(metric, rewards), _finite_values(metric, rewards))


def _check_equal(first: Any, second: Any) -> None:
    """The results of two calls with the same arguments are equal, so that a repeated stage gives the same output."""
    if not np.array_equal(first, second):
        results = f"{short(np.asarray(first).tolist())} and {short(np.asarray(second).tolist())}"
        raise DataError(f"two calls with the same arguments returned {results}; take all randomness from the arguments")


def _finite_values(metric: Metric, rewards: np.ndarray) -> np.ndarray:
    try:
        result = np.asarray(metric(rewards.copy()))
    except CALL_ERRORS as error:
        raise DataError(f"the metric raised {error_reason(error)}") from error
    if result.shape != (len(rewards),) or result.dtype.kind not in "biuf":
        form = f"{result.dtype} of shape {result.shape}"
        raise DataError(f"the metric returned {form} for rewards of shape {rewards.shape}; return one number per prompt")
    values = result.astype(np.float64)
    if infinite := int((~np.isfinite(values)).sum()):
        raise DataError(f"the metric is not finite for {infinite} of {len(values)} prompts; return a number also where rewards are equal")
    return values


def selected_places(selection: Selection, weights: np.ndarray, draws: np.ndarray, size: int) -> np.ndarray:
    """The indices that a selection draws, in its order.

    Args:
        weights: at least 0, not all 0, shape (prompts,).
        draws: uniform in (0, 1), one per prompt, the only source of randomness.
        size: how many, at most as many as there are prompts.

    Raises:
        DataError: if the selection raises, or does not return `size` different indices into `weights`.
    """
    try:
        places = np.asarray(selection(weights.copy(), draws.copy(), size))
    except CALL_ERRORS as error:
        raise DataError(f"the selection raised {error_reason(error)}") from error
    if places.shape != (size,) or places.dtype.kind not in "iu" or len(np.intersect1d(places, np.arange(len(weights)))) < size:
        raise DataError(
            f"the selection returned {places.dtype} of shape {places.shape}: {short(places.tolist())}; "
            f"return {size} different indices from 0 to {len(weights) - 1}"
        )
    return places


def check_selection(selection: Selection, recipe: Recipe) -> None:
    """Draw 3 of 8 prompts, with and without weights of 0."""
    for weights in (np.ones(8), np.array([0.0, 0.0, 1.0, 0.5, 0.25, 0.0, 0.0, 0.0])):
        _check_equal(*(selected_places(selection, weights, np.linspace(0.05, 0.95, 8), 3) for _ in range(2)))


def meta_prompt(method: Method, text: str, rng: np.random.Generator) -> tuple[str, str]:
    """(mutation, meta-prompt) by a method.

    Raises:
        DataError: if the method raises, or does not return two texts.
    """
    try:
        result = method(text, rng)
    except CALL_ERRORS as error:
        raise DataError(f"the method raised {error_reason(error)}") from error
    match result:
        case (str() as mutation, str() as meta) if mutation and meta.strip():
            return mutation, meta
    raise DataError(f"the method returned {short(result)}; return two texts, the mutation's name and the meta-prompt")


def check_method(method: Method, recipe: Recipe) -> None:
    """Write the meta-prompts of two prompts."""
    for text in ("Why is the sky blue?", "List 3 primes.\nThen add them up."):
        _check_equal(*(meta_prompt(method, text, np.random.default_rng(0)) for _ in range(2)))


def evolution_by(function: Evolver, text: str, reference: str | None, rng: np.random.Generator) -> tuple[str, str | None, str]:
    """(prompt, reference or None, mutation) by an evolver in a file.

    Raises:
        DataError: if the function raises, or returns anything else, or None.
    """
    try:
        result = function(text, reference, rng)
    except CALL_ERRORS as error:
        raise DataError(f"the evolver raised {error_reason(error)}") from error
    if result is None:
        raise DataError("the evolver returned None")
    return _checked_evolution(result)


def _checked_evolution(result: Any) -> tuple[str, str | None, str]:
    match result:
        case (str() as evolved, str() | None as reference, str() as mutation) if mutation and (reference is None or reference.strip()):
            if SURROGATE.search(f"{evolved}{reference}{mutation}"):
                raise DataError(f"the evolver returned {short(result)}, with half a character (a lone surrogate); return whole characters")
            return evolved, reference, mutation
    raise DataError(
        f"the evolver returned {short(result)}; return three values: the new prompt, its reference as a text (None if it has none), and "
        "the name of the mutation"
    )


def check_evolver(function: Evolver, recipe: Recipe) -> None:
    """Evolve a sum with its reference. What the function raises may be due to the sample, unless an error in the function shows."""
    evolutions = []
    for _ in range(2):
        try:
            result = function("What is 2 + 2?", "4", np.random.default_rng(0))
        except (NameError, AttributeError, TypeError, ImportError, SystemExit) as error:
            raise DataError(f"the evolver raised {error_reason(error)}") from error
        except Exception:
            return
        if result is None:
            return
        evolutions.append(_checked_evolution(result))
    _check_equal(*evolutions)


def filter_reason(function: Filter, text: str) -> str | None:
    """Why a filter leaves a prompt out; None if it does not.

    Raises:
        DataError: if the filter raises, or returns anything but None or a short text.
    """
    try:
        reason = function(text)
    except CALL_ERRORS as error:
        raise DataError(f"the filter raised {error_reason(error)}, for the prompt {short(text)}") from error
    if reason is None or (isinstance(reason, str) and 0 < len(reason) <= LONGEST_REASON and reason not in COUNTS):
        return reason
    raise DataError(
        f"the filter returned {short(reason)} for the prompt {short(text)}; return None, or a reason of 1 to {LONGEST_REASON} "
        f"characters other than {', '.join(COUNTS)}; the same one for all prompts that it applies to"
    )


def check_filter(function: Filter, recipe: Recipe) -> None:
    """Filter three prompts."""
    for text in ("Why is the sky blue?", "List 3 primes.\nThen add them up.", "\u4f60\u597d"):
        filter_reason(function, text)


def cell_name(function: CellFunction, messages: list[Message], reference: str | None) -> str:
    """The cell of a prompt.

    Raises:
        DataError: if the function raises, or does not return a short text.
    """
    try:
        name = function(messages, reference)
    except CALL_ERRORS as error:
        raise DataError(f"the cell function raised {error_reason(error)}, for the prompt {short(messages[-1]['content'])}") from error
    if isinstance(name, str) and 0 < len(name) <= LONGEST_CELL:
        return name
    raise DataError(f"the cell function returned {short(name)}; return a text of 1 to {LONGEST_CELL} characters, the name of the cell")


def check_cell(function: CellFunction, recipe: Recipe) -> None:
    """Find the cells of two prompts without a reference, as evolved prompts have none."""
    for text in ("What is 2 + 2?", "List 3 primes.\nThen add them up."):
        _check_equal(*(cell_name(function, [{"role": "user", "content": text}], None) for _ in range(2)))
