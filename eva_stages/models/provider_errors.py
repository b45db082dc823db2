"""What it means when a provider does not answer: whether the call may have been paid for, whether it is worth another try, and when.

A status that a server gives says that it did not do the work, except where a proxy speaks for it (502, 504 and the like), which cannot
know. A connection that is cut, a deadline that passes and an answer that cannot be read may all have been paid for.
"""

import re
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from eva_stages.core.redaction import redact
from eva_stages.models.wire import Exchange

REFUSAL_STATUSES = frozenset({401, 403, 404})
"""The key or the model's name is wrong: no other call will do better."""
FORBIDDEN_STATUS = 403
"""Also what some providers say of a single prompt, so it is the key only where no other call was answered."""
RETRY_STATUSES = frozenset({408, 409, 425, 429})
UNPAID_STATUSES = frozenset({500, 501, 503, 529})
"""Statuses from 500 with which a server says that it did not do the work."""
MAYBE_PAID_STATUSES = frozenset({408, 499})
TOO_MANY_REQUESTS = 429
REASON_CHARACTERS = 300


@dataclass(frozen=True)
class Failure:
    """A try that gave no answer.

    `again`: another try may do better; `paid`: the provider may bill it.
    """

    reason: str
    status: int | None
    can_retry: bool
    may_be_paid: bool
    retry_after: str | None = None


def failure(error: Exception, exchange: Exchange, deadline: float) -> Failure:
    """What went wrong with a call.

    Args:
        error: what LiteLLM raised, or TimeoutError after `deadline` seconds.
        exchange: what went over the wire; its status is the server's own, LiteLLM's is made up where there is none.
    """
    status = exchange.status if exchange.passed_here else _status(error)
    if isinstance(error, TimeoutError):
        note = f" although status {status} had come" if status is not None else ""
        reason = f"TimeoutError: no whole answer within {deadline:g} s (runtime.timeout){note}"
    elif exchange.problem:
        reason = redact(exchange.problem)[:REASON_CHARACTERS]
    else:
        words = " ".join(redact(str(error)).split())
        reason = f"{type(error).__name__}: {words}"[:REASON_CHARACTERS]
    if status is not None and 300 <= status < 400 and not exchange.may_be_delivered:
        target = redact(exchange.location or "nowhere")[:REASON_CHARACTERS]
        return Failure(f"status {status}, a redirect to {target}; give the final address as api_base", status, False, False)
    if not exchange.passed_here:
        return Failure(reason, status, _can_retry(status), not _is_unpaid(status))
    if exchange.may_be_delivered:  # an answer with status 2xx that cannot be read, or none that is whole
        return Failure(reason, status, True, True)
    return Failure(reason, status, _can_retry(status), status is not None and not _is_unpaid(status), exchange.retry_after)


def _can_retry(status: int | None) -> bool:
    return status is None or status >= 500 or status in RETRY_STATUSES


def _is_unpaid(status: int | None) -> bool:
    return status is not None and status not in MAYBE_PAID_STATUSES and (status < 500 or status in UNPAID_STATUSES)


def _status(error: Exception) -> int | None:
    """The HTTP status that LiteLLM gives a failure of a call (a cut connection counts as 500)."""
    code = error.__dict__.get("status_code")
    return code if isinstance(code, int) and code != 500 else None


def retry_after(value: str | None, present_time: float, longest: float) -> float | None:
    """Seconds that a Retry-After header asks to wait, at most `longest`; None where it says nothing that HTTP knows.

    Args:
        value: the header: whole seconds (fractions are taken too), or an HTTP date.
        now: seconds since the epoch.
    """
    text = (value or "").strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return min(longest, float(text[:20]))
    try:
        date = parsedate_to_datetime(text)
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - present_time
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(longest, max(0.0, seconds))
