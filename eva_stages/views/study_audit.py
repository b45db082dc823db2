"""Whether selection can work in the runs of a study: the audits of one arm, as means over its seeds."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eva_stages.core.errors import ConfigError
from eva_stages.evaluation.study_statistics import CONFIDENCE, t_interval
from eva_stages.views.audit_document import audit, mean_audit
from eva_stages.views.study_runs import RunResult


def study_audit(by_arm: Mapping[str, Sequence[RunResult]]) -> dict[str, Any] | None:
    """The audit of the first arm that has runs which can be audited; None if there is none.

    One arm is enough: in the first iteration that evolves, all arms of a seed select from the same prompts and responses.

    Returns:
        arm; runs: how many are audited; metric: the judged one; heritability: number of runs by state; metrics: figures of every metric,
        means over the runs with Student's 95 % interval.
    """
    for arm, runs in by_arm.items():
        audits = [document for result in runs if (document := _audit(result))]
        if audits:
            states = Counter(str(document["heritability"]) for document in audits)
            metric = audits[0]["judged_metric"]
            return {
                "arm": arm,
                "runs": len(audits),
                "metric": metric,
                "heritability": dict(sorted(states.items())),
                "metrics": mean_audit(audits, _interval),
            }
    return None


def _audit(result: RunResult) -> dict[str, Any] | None:
    try:
        return audit(result.history) if result.history is not None else None
    except ConfigError:
        return None


def _interval(values: np.ndarray) -> tuple[float, float]:
    return t_interval(values, CONFIDENCE) if np.ptp(values) > 0 else (float(values[0]), float(values[0]))
