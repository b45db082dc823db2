"""The results of a run, iteration by iteration, as the JSON document that `eva run` ends with."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow.compute as pc

from eva_stages.core.kinds import BASE, EVAL, JUDGE, KINDS, LETTERCRAFT, SCORE, stage_name
from eva_stages.core.numeric import mean
from eva_stages.core.parts import FAILED_CALLS
from eva_stages.core.prompt_references import source_counts
from eva_stages.core.run_folder import Run
from eva_stages.core.tables import read_table, reward_matrix
from eva_stages.creator.informativeness import reward_gap
from eva_stages.views.creator_figures import creator_figures
from eva_stages.views.gate_summary import gate_summary
from eva_stages.views.history import Artifact, History
from eva_stages.views.online_figures import online_figures
from eva_stages.views.policy_costs import policy_costs


def summary(history: History) -> dict[str, Any]:
    """Every figure of the run's tables; null where a stage is not complete."""
    run = Run(history.root)
    policies = history.every("train")
    base_name = stage_name(SCORE, LETTERCRAFT, BASE)
    return {
        "recipe": history.recipe_name,
        "only": history.evaluation_only,
        "run": str(run.root),
        "stages": str(run.stages),
        "base": {"held_out": _scores(history.find(base_name, 0))} if history.find_planned(base_name, 0) else None,
        "iterations": [_iteration(history, number) for number in history.planned_iterations],
        "benchmarks": benchmark_scores(history),
        "costs": policy_costs(history),
        "policy": str(policies[-1].content) if policies else None,
    }


def _sampled_pairs(counts: dict[str, Any]) -> dict[str, int] | None:
    """Pairs of responses that training sampled itself, which have no stage."""
    return {"pair": counts["pairs"]} if "pairs" in counts and "responses" in counts else None


def _iteration(history: History, number: int) -> dict[str, Any]:
    planned_stages = [stage for stage in history.stages if stage.iteration == number]
    artifacts = {artifact.stage: artifact for artifact in history.artifacts if artifact.iteration == number}
    counts = {name: artifact.manifest["counts"] for name, artifact in artifacts.items()}
    prompts, train, health = history.prompt_sets.get(number), artifacts.get("train"), artifacts.get("health")
    failures = {name: reasons for name, artifact in artifacts.items() if (reasons := artifact.manifest.get("failures"))}
    return {
        "iteration": number,
        "prompts": history.size(prompts) if prompts else None,
        "evolved": counts["curate"]["kept"] if "curate" in counts else None,
        "rejected": _rejection_counts(counts) if "curate" in counts else None,
        "gate": gate_summary(history, number),
        **_rewards(artifacts.get("reward") or artifacts.get("uses")),
        "online": online_figures(history, number),
        "failures": failures,
        "references": {name: sources for name, values in counts.items() if (sources := source_counts(values))},
        "pairs": counts.get("pair") or _sampled_pairs(counts.get("train", {})),
        "rewrites": counts.get("rewritten"),
        "unscored": train.manifest["counts"].get("unscored") if train else None,
        "training": train.manifest["training"] | {"steps": train.manifest["counts"]["steps"]} if train else None,
        "creator": creator_figures(history, number),
        "analysis": _analysis(artifacts),
        "held_out": _scores(artifacts.get(stage_name(SCORE, LETTERCRAFT, EVAL))),
        "health": {"figures": health.manifest["figures"], "warnings": health.warnings} if health else None,
        "seconds": round(sum(artifact.manifest["seconds"] for artifact in artifacts.values()), 1),
        "done": len(artifacts) == len(planned_stages),
    }


def _rejection_counts(counts: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Why curating and decontaminating rejected evolutions."""
    contamination = {"contaminated": counts["decontaminate"]["contaminated"]} if "decontaminate" in counts else {}
    reasons = {**counts["curate"], **contamination}
    return {reason: count for reason, count in reasons.items() if reason not in (*KINDS["curate"].kept_counts, FAILED_CALLS) and count}


def _rewards(artifact: Artifact | None) -> dict[str, float | None]:
    unknown: dict[str, float | None] = {"mean_reward": None, "mean_gap": None}
    if artifact is None:
        return unknown
    rewards = reward_matrix(read_table(artifact.content, ["rewards"])["rewards"])
    scored_rewards = rewards[np.isfinite(rewards).all(axis=1)]
    return (
        {"mean_reward": float(mean(scored_rewards)), "mean_gap": float(mean(reward_gap(scored_rewards)))}
        if len(scored_rewards)
        else unknown
    )


def _analysis(artifacts: Mapping[str, Artifact]) -> dict[str, Any] | None:
    """Mean quality and complexity of the prompts and the number of prompts by topic; null where the recipe does not ask for them."""
    document: dict[str, Any] = {}
    if scores := artifacts.get("analyse-scores"):
        table = read_table(scores.content, ["quality", "complexity"])
        document |= {name: pc.mean(table[name]).as_py() for name in table.column_names}
        document["unscored"] = scores.manifest["counts"].get("unscored", 0)
    if topics := artifacts.get("analyse-topics"):
        labels = read_table(topics.content, ["topic"])["topic"].drop_null().to_pylist()
        document["topics"] = dict(Counter(map(str, labels)).most_common())
        document["unlabelled"] = topics.manifest["counts"].get("unlabelled", 0)
    return document or None


def _scores(artifact: Artifact | None) -> dict[str, Any] | None:
    return artifact.manifest["scores"] if artifact else None


def benchmark_scores(history: History) -> list[dict[str, Any]]:
    """The scores of every policy on every public benchmark, as in `score.json`; null where that is not complete."""
    of_benchmarks = [stage for stage in history.stages if stage.parsed_name.benchmark not in (None, LETTERCRAFT)]
    entries = []
    for name in dict.fromkeys(stage.parsed_name.benchmark for stage in of_benchmarks):
        score_stages = [stage for stage in of_benchmarks if stage.parsed_name.benchmark == name and stage.parsed_name.kind == SCORE]
        for stage in sorted(score_stages, key=lambda stage: (stage.iteration, stage.parsed_name.side != BASE)):
            parsed_name = stage.parsed_name
            judgments = history.find(stage_name(JUDGE, name, parsed_name.side), stage.iteration)
            policy, spending = parsed_name.policy(stage.iteration), _spending(judgments)
            entries.append({"benchmark": name, "policy": policy, "scores": _scores(history.artifact(stage)), "spending": spending})
    return entries


def _spending(judgments: Artifact | None) -> dict[str, float] | None:
    """The cost of judging a policy in this run, and separately the reused earlier calls; null where it is not complete."""
    if judgments is None:
        return None
    counts = judgments.manifest["counts"]
    return {name: counts.get(name, 0) for name in ("cost_usd", "estimated_calls", "reused_calls", "reused_usd")}
