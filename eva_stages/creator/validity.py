"""Functions that decide whether a prompt is a valid task: `f(messages, reference) -> bool | None`, None where that cannot be said."""

from collections.abc import Callable

import numpy as np

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.decoding import short
from eva_stages.core.errors import DataError
from eva_stages.core.failures import CALL_ERRORS, error_reason
from eva_stages.core.rows import Message, last_user_text
from eva_stages.lettercraft.distributions import is_within_reach
from eva_stages.lettercraft.language import parse
from eva_stages.models.task_families import confirms

Validity = Callable[[list[Message], str | None], bool | None]


def lettercraft(messages: list[Message], reference: str | None) -> bool:
    """Whether the prompt is an instruction of the deep world, and its reference, if any, the answer."""
    instruction = parse(last_user_text(messages))
    return instruction is not None and is_within_reach(instruction) and reference in (None, instruction.answer)


def reasoning_gym(messages: list[Message], reference: str | None) -> bool:
    """Whether the reference is a task of reasoning-gym, and the prompt its question."""
    return confirms(messages, reference)


def is_valid(function: Validity, messages: list[Message], reference: str | None) -> tuple[bool | None, str | None]:
    """(verdict, None), or (None, the reason why there is none)."""
    try:
        verdict = function([dict(message) for message in messages], reference)  # a function may change its arguments
    except CALL_ERRORS as error:  # one prompt must not stop the stage
        return None, error_reason(error)
    if isinstance(verdict, bool | np.bool_):
        return bool(verdict), None
    return None, f"the function returned {short(verdict)}; return True or False, or None where that cannot be said"


def check_validity(function: Validity, recipe: Recipe) -> None:
    """Decide about a prompt, with and without a reference.

    Raises:
        DataError: if an error in the function shows, or it returns anything but True, False or None.
    """
    for reference in ("4", None):
        try:
            verdict = function([{"role": "user", "content": "What is 2 + 2?"}], reference)
        except (NameError, AttributeError, TypeError, ImportError, SystemExit) as error:
            raise DataError(f"the function raised {error_reason(error)}") from error
        except Exception:  # the sample may be no prompt that it can read
            continue
        if verdict is not None and not isinstance(verdict, bool | np.bool_):
            raise DataError(f"the function returned {short(verdict)}; return True or False, or None where that cannot be said")
