"""MT-Bench, single-answer grading: what a judge's text says.

A judge ends its explanation with `[[rating]]`, 1 to 10. The first rating counts, single brackets are the fallback, and a text
without one is no rating (official files say -1, here it is null), never a low one. The function is given the judge's text alone,
so that a `[[10]]` in a candidate's answer is never seen.
"""

import re

_DOUBLE = re.compile(r"\[\[(\d+\.?\d*)\]\]")
_SINGLE = re.compile(r"\[(\d+\.?\d*)\]")


def rating(text: str | None) -> float | None:
    """The rating in a judge's text, fractions included; None if there is none."""
    found = _DOUBLE.search(text or "") or _SINGLE.search(text or "")
    return float(found.group(1)) if found else None
