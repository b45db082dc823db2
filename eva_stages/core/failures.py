"""One rule for failed calls, to an evolver, critic, scorer, rewriter, judge, classifier, reward or custom function.

A failed call results in null and a reason, never in a value or in a rejected response. Each row counts its `calls`, its `failed` calls and
the reasons; the stage's manifest contains the sums as `counts` and `failures`. A stage with more failed calls than the recipe's `limits`
allow fails and quotes the most frequent reason. The next attempt at a stage retries exactly the rows with a failed call.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from eva_stages.core.harmless import visible
from eva_stages.core.parts import FAILED_CALLS, add_statistics
from eva_stages.core.redaction import redact

CALLS = "calls"
REASON = "reason: "
"""Prefix of a reason among the statistics of a row."""
CALL_ERRORS = (Exception, SystemExit)
"""What a user's function may raise; `sys.exit` in it must not end the command, least of all with exit code 0."""
LONGEST = 300
MOST_REASONS = 20


def plain(text: str) -> str:
    """A reason as one line of at most `LONGEST` characters, without secrets and control characters."""
    line = " ".join(visible(redact(text)).split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 4]} ..."


def error_reason(error: BaseException) -> str:
    """Type and message of an exception."""
    try:
        words = str(error)
    except Exception:  # a class whose __str__ fails
        words = ""
    return plain(f"{type(error).__name__}: {words}" if words.strip() else type(error).__name__)


def add_calls(row: dict[str, Any], *failures: str | None) -> None:
    """Count the calls for a row, each given by the reason of its failure, or None."""
    reasons = [reason for reason in failures if reason is not None]
    add_statistics(row, **{CALLS: len(failures), FAILED_CALLS: len(reasons)})
    add_reasons(row, *reasons)


def add_reasons(row: dict[str, Any], *reasons: str) -> None:
    """Count reasons of nulls without a failed call, such as a reply without a verdict. They cause no retry."""
    add_statistics(row, **Counter(REASON + plain(reason) for reason in reasons))


def split(statistics: Mapping[str, float]) -> tuple[dict[str, float], dict[str, int]]:
    """Split the sums of a stage's statistics into (counts, failures); failures are the reasons, most frequent first."""
    counts = {name: value for name, value in sorted(statistics.items()) if not name.startswith(REASON)}
    reasons = Counter({name.removeprefix(REASON): int(value) for name, value in statistics.items() if name.startswith(REASON)})
    ranking = sorted(reasons.items(), key=lambda entry: (-entry[1], entry[0]))
    failures = dict(ranking[:MOST_REASONS])
    if other_count := sum(count for _, count in ranking[MOST_REASONS:]):
        failures["other reasons"] = other_count
    return counts, failures


def commonest(failures: Mapping[str, int]) -> str | None:
    """The most frequent reason with its count, as in "most often (20): connection refused"; None without reasons."""
    if not failures:
        return None
    reason, count = max(failures.items(), key=lambda entry: entry[1])
    return f"most often ({count}): {reason}"
