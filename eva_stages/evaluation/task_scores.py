"""The score of a policy on held-out tasks: the percentage of correct responses, sampled and greedy.

A response is correct if the family gives it the full score of 1. Questions without a scored response are left out and counted.
"""

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from eva_stages.core.runner import Context
from eva_stages.core.tables import mean_tokens, read_table, reward_matrix, write_rows
from eva_stages.evaluation.statistics import VALUES, estimate_values, question_values

CONFIDENCE = 0.95
PERCENT = 100.0


def score(context: Context, seed: int) -> dict[str, Any]:
    """Write the values of the questions (sampled responses) and `score.json`.

    Inputs of the stage: answers, rewards.
    """
    rewards = read_table(context.inputs["rewards"])
    values = {name: correct_shares(rewards, column) for name, column in (("score", "rewards"), ("greedy", "greedy_rewards"))}
    estimates = {name: estimate_values(table, CONFIDENCE, seed) for name, table in values.items()}
    scores: dict[str, Any] = {name: None if estimate is None else asdict(estimate) for name, estimate in estimates.items()}
    scores["answer_tokens"] = mean_tokens(context.inputs["answers"])
    write_rows([values["score"]], VALUES, context.artifact)
    (context.artifact / "score.json").write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
    return {"counts": {"not_judged": values["score"]["value"].null_count}, "scores": scores}


def correct_shares(rewards: pa.Table, column: str) -> pa.Table:
    """The percentage of correct responses to each question, of those that have a score, as a `VALUES` table."""
    matrix = reward_matrix(rewards[column])
    shares = [PERCENT * float(np.mean(row[np.isfinite(row)] >= 1)) if np.isfinite(row).any() else None for row in matrix]
    return question_values(dict(zip(rewards["prompt_id"].to_pylist(), shares, strict=True)))
