"""The held-out Lettercraft score: rewards of sampled and greedy answers, and the judged win rate against the base policy."""

import json
from typing import Any

import numpy as np
import pyarrow as pa

from eva_stages.core.runner import Context
from eva_stages.core.tables import per_prompt_mean, read_table, reward_matrix
from eva_stages.evaluation.statistics import Estimate, clustered_bootstrap


def score(context: Context, confidence: float, seed: int) -> dict[str, Any]:
    """Write `score.json`, and put the same scores into the manifest; a score of which nothing is known is left out.

    Inputs of the stage: rewards; and, unless the model is the baseline itself, base_rewards and judgments.
    """
    rewards = read_table(context.inputs["rewards"])
    sampled, greedy = (per_prompt_mean(rewards, column) for column in ("rewards", "greedy_rewards"))
    values = {"sampled": sampled, "greedy": greedy}
    scores = {name: clustered_bootstrap(one, confidence, seed) for name, one in values.items() if np.isfinite(one).any()}
    counts = {"unscored": int(np.isnan(reward_matrix(rewards["rewards"])).sum())}
    if "judgments" in context.inputs:
        base = read_table(context.inputs["base_rewards"])
        gain = sampled - per_prompt_mean(base, "rewards")
        if np.isfinite(gain).any():
            scores["sampled_gain"] = clustered_bootstrap(gain, confidence, seed)
        judgments = read_table(context.inputs["judgments"], ["question_id", "outcome"])
        if judgments["outcome"].null_count < len(judgments):
            scores["win_rate"] = win_rate(judgments, confidence, seed)
        counts["no_verdict"] = judgments["outcome"].null_count
    plain = {name: estimate.as_dict() for name, estimate in scores.items()}
    context.out.mkdir(parents=True)
    (context.out / "score.json").write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
    return {"counts": counts, "scores": plain}


def win_rate(judgments: pa.Table, confidence: float, seed: int) -> Estimate:
    """Share of games won (ties count half), each prompt's games averaged first."""
    by_prompt: dict[str, list[float]] = {}
    for row in judgments.to_pylist():
        by_prompt.setdefault(row["question_id"], []).extend([] if row["outcome"] is None else [row["outcome"]])
    values = np.array([np.mean(games) if games else np.nan for games in by_prompt.values()])
    return clustered_bootstrap(values, confidence, seed)
