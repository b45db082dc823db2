"""One rule for calls that fail, whoever is asked: evolver, critic, scorer, rewriter, judge, classifier, reward or a custom function.

A failed call leaves null and a reason; it is never a value and never a rejection of what a model replied. Each row counts its `calls`,
those that `failed`, and how often each reason occurred; the sums stand in the stage's manifest as `counts` and `failures`. A stage that
has more failed calls than the recipe's `limits` allow fails and quotes the commonest reason. The next attempt at a stage asks again for
the rows with a failed call, and for no others.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from eva_stages.core.harmless import visible
from eva_stages.core.parts import FAILED, add_statistics
from eva_stages.core.redaction import redact

CALLS = "calls"
REASON = "reason: "
"""In front of a reason among the statistics of a row."""
LONGEST = 300
MOST_REASONS = 20


def plain(text: str) -> str:
    """A reason as one line of at most `LONGEST` characters, without secrets, that any file and terminal can take."""
    line = " ".join(visible(redact(text)).split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 4]} ..."


def error_reason(error: BaseException) -> str:
    """What an exception says, with its type in front."""
    try:
        words = str(error)
    except Exception:  # a message that cannot be made is none
        words = ""
    return plain(f"{type(error).__name__}: {words}" if words.strip() else type(error).__name__)


def add_calls(row: dict[str, Any], *failures: str | None) -> None:
    """Count the calls that were made for a row, each with the reason why it failed or None."""
    reasons = [reason for reason in failures if reason is not None]
    add_statistics(row, **{CALLS: len(failures), FAILED: len(reasons)})
    add_reasons(row, *reasons)


def add_reasons(row: dict[str, Any], *reasons: str) -> None:
    """Count why something is null where no call failed, such as a reply without a verdict. It is no reason to ask again."""
    add_statistics(row, **Counter(REASON + plain(reason) for reason in reasons))


def split(statistics: Mapping[str, float]) -> tuple[dict[str, float], dict[str, int]]:
    """The sums of a stage's statistics as (counts, failures): without the reasons, and the reasons alone, commonest first."""
    counts = {name: value for name, value in sorted(statistics.items()) if not name.startswith(REASON)}
    reasons = Counter({name.removeprefix(REASON): int(value) for name, value in statistics.items() if name.startswith(REASON)})
    ranked = sorted(reasons.items(), key=lambda entry: (-entry[1], entry[0]))
    failures = dict(ranked[:MOST_REASONS])
    if others := sum(count for _, count in ranked[MOST_REASONS:]):
        failures["other reasons"] = others
    return counts, failures


def commonest(failures: Mapping[str, int]) -> str | None:
    """The commonest reason with its count, as in "most often (20): connection refused"; None without reasons."""
    if not failures:
        return None
    reason, count = max(failures.items(), key=lambda entry: entry[1])
    return f"most often ({count}): {reason}"
