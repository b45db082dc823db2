"""Classifies failed calls to a provider: whether a call may have been billed, whether a retry can succeed, and when to retry.

An error status means that the server did not do the work, unless a proxy sent it (502, 504 and similar). A lost connection, a timeout and
an unreadable response may all have been billed.
"""

import re
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from eva_stages.core.redaction import redact
from eva_stages.models.wire import Exchange

REFUSAL_STATUSES = frozenset({401, 403, 404})
"""The key or the model's name is wrong, so every other call fails too."""
FORBIDDEN_STATUS = 403
"""Some providers also reject single prompts with it, so it means a wrong key only if no call got a response."""
RETRY_STATUSES = frozenset({408, 409, 425, 429})
UNPAID_STATUSES = frozenset({500, 501, 503, 529})
"""Statuses from 500 that mean that the server did not do the work."""
MAYBE_PAID_STATUSES = frozenset({408, 499})
TOO_MANY_REQUESTS = 429
REASON_CHARACTERS = 300


@dataclass(frozen=True)
class Failure:
    """A try without a response.

    `can_retry`: another try may succeed; `may_be_paid`: the provider may bill this try.
    """

    reason: str
    status: int | None
    can_retry: bool
    may_be_paid: bool
    retry_after: str | None = None


def failure(error: Exception, exchange: Exchange, deadline: float) -> Failure:
    """Classify a failed call.

    Args:
        error: the exception of LiteLLM, or TimeoutError after `deadline` seconds.
        exchange: the call on the wire, with the server's real status; LiteLLM invents a status where there is none.
    """
    status = exchange.status if exchange.is_observed else _status(error)
    if isinstance(error, TimeoutError):
        note = f" after status {status} had arrived" if status is not None else ""
        reason = f"TimeoutError: no complete response within {deadline:g} s (runtime.timeout){note}"
    elif exchange.problem:
        reason = redact(exchange.problem)[:REASON_CHARACTERS]
    else:
        words = " ".join(redact(str(error)).split())
        reason = f"{type(error).__name__}: {words}"[:REASON_CHARACTERS]
    if status is not None and 300 <= status < 400 and not exchange.may_be_delivered:
        target = redact(exchange.location or "nowhere")[:REASON_CHARACTERS]
        return Failure(f"status {status}, a redirect to {target}; give the final address as api_base", status, False, False)
    if not exchange.is_observed:
        return Failure(reason, status, _can_retry(status), not _is_unpaid(status))
    if exchange.may_be_delivered:  # an unreadable response with status 2xx, or an incomplete response
        return Failure(reason, status, True, True)
    return Failure(reason, status, _can_retry(status), status is not None and not _is_unpaid(status), exchange.retry_after)


def _can_retry(status: int | None) -> bool:
    return status is None or status >= 500 or status in RETRY_STATUSES


def _is_unpaid(status: int | None) -> bool:
    return status is not None and status not in MAYBE_PAID_STATUSES and (status < 500 or status in UNPAID_STATUSES)


def _status(error: Exception) -> int | None:
    """LiteLLM's HTTP status of an error; None for 500, which it also uses for lost connections."""
    code = error.__dict__.get("status_code")
    return code if isinstance(code, int) and code != 500 else None


def retry_after(value: str | None, present_time: float, longest: float) -> float | None:
    """The seconds of a Retry-After header, at most `longest`; None if the header is invalid.

    Args:
        value: the header: seconds (fractions are accepted), or an HTTP date.
        present_time: seconds since the epoch.
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
