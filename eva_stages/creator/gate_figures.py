"""Shares of the gate and of its audit, with 95 % intervals [Wilson 1927]. What has no verdict is counted and in no share."""

from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from eva_stages.creator.gate_questions import NOT_AGREED, TESTS


def share(count: int, total: int) -> dict[str, float | int] | None:
    """count / total with its interval; None of nothing."""
    from scipy.stats import binomtest

    if not total:
        return None
    interval = binomtest(count, total).proportion_ci(method="wilson")
    return {"value": count / total, "low": float(interval.low), "high": float(interval.high), "n": total}


def gate_figures(verdicts: pa.Table) -> dict[str, Any]:
    """What the gate made of the evolved prompts.

    `rate` is the share of the prompts with a verdict that passed; `tests` has, per test, the share that passed it of the prompts that came
    to it; `left_out` the numbers of prompts by reason.

    Args:
        verdicts: rows of the schema `gate_verdicts`.
    """
    tests = {test: figures for test in TESTS if (figures := _true_share(verdicts[test])) is not None}
    return {
        "prompts": len(verdicts),
        "passed": _true_count(verdicts["valid"]),
        "no_verdict": verdicts["valid"].null_count,
        "rate": _true_share(verdicts["valid"]),
        "tests": tests,
        "left_out": dict(Counter(verdicts["reason"].drop_null().to_pylist()).most_common()),
    }


def audit_figures(verdicts: pa.Table) -> dict[str, Any]:
    """What the audit found in its samples.

    `precision` is the share of the prompts that the gate passed which the audit finds valid, `false_rejections` the same of those that the
    gate left out. A prompt on which the audit's two replies differ is not valid; `not_agreed` counts them.

    Args:
        verdicts: rows of the schema `gate_audits`.
    """
    return {
        "precision": _true_share(verdicts.filter(verdicts["passed"])["answerable"]),
        "false_rejections": _true_share(verdicts.filter(pc.invert(verdicts["passed"]))["answerable"]),
        "not_agreed": pc.sum(pc.ends_with(verdicts["reason"], NOT_AGREED)).as_py() or 0,
        "no_verdict": verdicts["answerable"].null_count,
    }


def _true_count(column: pa.ChunkedArray) -> int:
    return int(pc.sum(column).as_py() or 0)


def _true_share(column: pa.ChunkedArray) -> dict[str, float | int] | None:
    return share(_true_count(column), len(column) - column.null_count)
