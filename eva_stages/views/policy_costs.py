"""What each policy of a run cost, beside its held-out scores: generated tokens, GPU-hours and money.

The cost of a policy is that of all stages of creator and solver up to its iteration, whoever computed them; evaluation and health are
apart. Money is what this run sent to providers (`usd`; `estimated_usd` of it is counted at the worst case, as no usage was reported), and
apart from it what was paid before: by stages that other runs of the store computed, and by calls that were found in a journal.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eva_stages.core.kinds import BASE, Role
from eva_stages.core.ledger import Attempts, actual, earlier_attempts
from eva_stages.core.progress import dollars
from eva_stages.core.run_folder import Run
from eva_stages.core.study_record import is_generating
from eva_stages.core.text_table import TextTable
from eva_stages.views.history import COST, Artifact, History
from eva_stages.views.recorded_scores import Score, scores

CALL_COUNTS = ("estimated_calls", "reused_calls", "unpriced_calls")
EVALUATION_ROLES = frozenset({Role.QUESTIONS, Role.JUDGMENTS, Role.SCORE, Role.HEALTH})
NOT_MEASURES = ("sampled_gain", "win_rate")
"""Scores of a policy against the base policy, which has none."""


def policy_costs(history: History) -> dict[str, Any]:
    """The costs of a run.

    Returns:
        policies: of each policy with a score or a training, `policy`, `scores` (benchmark, name, value, low, high), and its costs:
        generated_tokens (by policy and evolver, for training), output_tokens (by every model), gpu_hours (null where no stage recorded its
        devices), hours, usd, estimated_usd, reused_usd, and numbers of calls; evaluation: the same of all other stages; total: of all.
    """
    return costs_of(history.root, history.artifacts)


def costs_of(root: Path, artifacts: Sequence[Artifact]) -> dict[str, Any]:
    """The same of a run's folder and its complete artifacts."""
    attempts = earlier_attempts(Run(root).events())
    entries = [(artifact, _entry(artifact, attempts)) for artifact in artifacts]
    training = [(artifact, entry) for artifact, entry in entries if not is_evaluation(artifact)]
    scores_by_policy: dict[str, list[Score]] = {}
    for score in scores(artifacts):
        if score.low is not None:
            scores_by_policy.setdefault(score.policy, []).append(score)
    trained_policies = {artifact.policy for artifact, _ in training if artifact.stage == "train"}
    names = sorted({*scores_by_policy, *trained_policies}, key=policy_order)
    return {
        "policies": [
            {
                "policy": name,
                "scores": [_score_entry(score) for score in scores_by_policy.get(name, [])],
                **cost_sums(entry for artifact, entry in training if artifact.iteration <= policy_order(name)),
            }
            for name in names
        ],
        "evaluation": cost_sums(entry for artifact, entry in entries if is_evaluation(artifact)),
        "total": cost_sums(entry for _, entry in entries),
    }


def is_evaluation(artifact: Artifact) -> bool:
    """Whether a stage evaluates a policy; what it costs is no part of the policy's cost."""
    name = artifact.parsed_name
    return name.side is not None or name.benchmark is not None or name.kind.role in EVALUATION_ROLES


def policy_order(policy: str) -> int:
    """The iteration of a policy; -1 for the base policy."""
    return -1 if policy == BASE else int(policy.rpartition(" ")[2])


def _entry(artifact: Artifact, attempts: Mapping[str, Attempts]) -> dict[str, Any]:
    counts = artifact.manifest["counts"]
    use = actual(artifact.manifest, attempts.get(artifact.manifest["fingerprint"], Attempts()))
    earlier_usd = counts.get("reused_usd", 0.0) + (use["usd"] if use["reused"] else 0.0)
    return {
        "generated_tokens": int(counts.get("output_tokens", 0)) if is_generating(artifact.stage) else 0,
        "output_tokens": int(counts.get("output_tokens", 0)),
        "seconds": use["seconds"] + use["earlier_seconds"],
        "gpu_seconds": use["gpu_seconds"],
        "usd": 0.0 if use["reused"] else counts.get(COST, 0.0),
        "estimated_usd": 0.0 if use["reused"] else counts.get("estimated_usd"),
        "reused_usd": earlier_usd,
        "reused_stages": int(use["reused"]),
        **{name: int(counts.get(name, 0)) for name in CALL_COUNTS},
    }


def cost_sums(entries: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Sums over stages. `estimated_usd` is null where calls are estimated and an earlier version of eva did not record their cost."""
    stages = list(entries)
    gpu_seconds = [entry["gpu_seconds"] for entry in stages if entry["gpu_seconds"] is not None]
    is_recorded = all(entry["estimated_usd"] is not None or not entry["estimated_calls"] for entry in stages)
    return {
        "stages": len(stages),
        "reused_stages": sum(entry["reused_stages"] for entry in stages),
        "generated_tokens": sum(entry["generated_tokens"] for entry in stages),
        "output_tokens": sum(entry["output_tokens"] for entry in stages),
        "hours": round(sum(entry["seconds"] for entry in stages) / 3600, 6),
        "gpu_hours": round(sum(gpu_seconds) / 3600, 6) if gpu_seconds or not stages else None,
        "usd": round(sum(entry["usd"] for entry in stages), 6),
        "estimated_usd": round(sum(entry["estimated_usd"] or 0.0 for entry in stages), 6) if is_recorded else None,
        "reused_usd": round(sum(entry["reused_usd"] for entry in stages), 6),
        **{name: sum(entry[name] for entry in stages) for name in CALL_COUNTS},
    }


def _score_entry(score: Score) -> dict[str, Any]:
    return {"benchmark": score.benchmark, "name": score.name, "value": score.value, "low": score.low, "high": score.high}


def main_measure(costs: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first held-out measure (benchmark, name) that most policies have; None without scores."""
    counts: dict[tuple[str, str], int] = {}
    for entry in costs["policies"]:
        for score in entry["scores"]:
            if score["name"] not in NOT_MEASURES:
                counts[score["benchmark"], score["name"]] = counts.get((score["benchmark"], score["name"]), 0) + 1
    return max(counts, key=lambda measure: counts[measure]) if counts else None


def score_of(entry: Mapping[str, Any], measure: tuple[str, str] | None) -> Mapping[str, Any] | None:
    """A policy's score in a measure; None if it has none."""
    return next((score for score in entry["scores"] if (score["benchmark"], score["name"]) == measure), None)


def cost_table(costs: Mapping[str, Any]) -> TextTable:
    """The main held-out score of every policy against what it cost."""
    measure = main_measure(costs)
    head = "score" if measure is None else f"{measure[0]} {measure[1].replace('_', ' ')}"
    heads = ("policy", head, "tokens", "GPU-h", "USD sent", "estimated", "reused")
    rows = [(entry["policy"], _score_text(score_of(entry, measure)), *_cost_cells(entry)) for entry in costs["policies"]]
    rows.append(("evaluation", "", *_cost_cells(costs["evaluation"])))
    notes = [
        "a policy's cost is that of all stages that led to it; tokens: generated by policy and evolver for training",
        "USD estimated: the part of USD sent that is counted at the worst case; reused: paid before, by other runs or stages",
    ]
    if unpriced_calls := costs["total"]["unpriced_calls"]:
        notes.append(f"{unpriced_calls:,} calls have no known price and count as 0; give runtime.price")
    if measure is None:
        notes.append("no held-out scores: evaluation.benchmarks of the recipe names the benchmarks to measure the policies with")
    return TextTable(
        "cost" if measure is None else "held-out score against cost", heads, rows, notes, "lrRRRRR", optional=("reused", "estimated")
    )


def _score_text(score: Mapping[str, Any] | None) -> str:
    return "" if score is None else f"{score['value']:.3f}"


def _cost_cells(sums: Mapping[str, Any]) -> tuple[str, ...]:
    estimate = sums["estimated_usd"]
    return (
        f"{sums['generated_tokens']:,}",
        "" if sums["gpu_hours"] is None else f"{sums['gpu_hours']:.2f}",
        dollars(sums["usd"]),
        f"{sums['estimated_calls']:,} calls" if estimate is None else dollars(estimate),
        dollars(sums["reused_usd"]),
    )


def cost_sentence(sums: Mapping[str, Any]) -> str:
    """Costs in one sentence, money with cents."""
    gpu = "" if not sums["gpu_hours"] else f", {sums['gpu_hours']:,.2f} GPU-hours"
    estimate = "" if not sums["estimated_usd"] else f", {dollars(sums['estimated_usd'])} of it estimated"
    earlier_text = "" if not sums["reused_usd"] else f", and {dollars(sums['reused_usd'])} USD paid before"
    tokens = f"{sums['output_tokens']:,} generated tokens, {sums['generated_tokens']:,} of them for training"
    return f"{tokens}{gpu}; {dollars(sums['usd'])} USD sent to providers{estimate}{earlier_text}"
