"""The held-out Lettercraft score: rewards of sampled and greedy responses, shares of exact ones, judged win rate against the base."""

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from eva_stages.core.runner import Context
from eva_stages.core.tables import known_means, per_prompt_mean, read_table, reward_matrix
from eva_stages.evaluation.statistics import Estimate, clustered_bootstrap


def score(context: Context, confidence: float, seed: int) -> dict[str, Any]:
    """Write `score.json`, and the same scores to the manifest, without those that have no value.

    Inputs of the stage: rewards; for all policies but the base policy also base_rewards and judgments.
    """
    rewards = read_table(context.inputs["rewards"])
    sampled_means, greedy = (per_prompt_mean(rewards, column) for column in ("rewards", "greedy_rewards"))
    exact, exact_greedy = (exact_shares(reward_matrix(rewards[column])) for column in ("rewards", "greedy_rewards"))
    values = {"sampled": sampled_means, "greedy": greedy, "exact": exact, "exact_greedy": exact_greedy}
    scores = {name: clustered_bootstrap(value, confidence, seed) for name, value in values.items() if np.isfinite(value).any()}
    counts = {"unscored": int(np.isnan(reward_matrix(rewards["rewards"])).sum())}
    if "judgments" in context.inputs:
        base = read_table(context.inputs["base_rewards"])
        gain = sampled_means - per_prompt_mean(base, "rewards")
        if np.isfinite(gain).any():
            scores["sampled_gain"] = clustered_bootstrap(gain, confidence, seed)
        judgments = read_table(context.inputs["judgments"], ["question_id", "outcome"])
        if judgments["outcome"].null_count < len(judgments):
            scores["win_rate"] = win_rate(judgments, confidence, seed)
        counts["no_verdict"] = judgments["outcome"].null_count
    plain = {name: asdict(estimate) for name, estimate in scores.items()}
    context.artifact.mkdir(parents=True)
    (context.artifact / "score.json").write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
    return {"counts": counts, "scores": plain}


def exact_shares(grades: np.ndarray) -> np.ndarray:
    """The share of exact responses of every prompt, NaN where none is scored. Only an exact response has the grade 1."""
    return known_means(np.where(np.isfinite(grades), grades == 1.0, np.nan))


def win_rate(judgments: pa.Table, confidence: float, seed: int) -> Estimate:
    """Mean over prompts of the mean outcome of their games."""
    by_prompt: dict[str, list[float]] = {}
    for row in judgments.to_pylist():
        by_prompt.setdefault(row["question_id"], []).extend([] if row["outcome"] is None else [row["outcome"]])
    values = np.array([np.mean(games) if games else np.nan for games in by_prompt.values()])
    return clustered_bootstrap(values, confidence, seed)
