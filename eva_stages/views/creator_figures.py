"""The figures of an iteration's creator: how good its evolutions are, and what it was trained on."""

from typing import Any

import numpy as np
import pyarrow.compute as pc

from eva_stages.core.tables import read_table, reward_matrix
from eva_stages.evaluation.audit_statistics import learnable
from eva_stages.views.history import Artifact, History


def creator_figures(history: History, iteration: int) -> dict[str, Any] | None:
    """Figures of the evolutions to which the policy responded, and of the creator's training; None where the recipe has neither.

    `learnable_share` is over the evolutions whose responses all have a reward, `valid_share` over those whose validity is known, and
    `mean_utility` over the valid ones with a utility. Figures are null where their stage is not part of the recipe or not complete.
    """
    rewards, utilities, pairs, training = (
        history.find(name, iteration) for name in ("admit-reward", "creator-utility", "creator-pair", "creator-train")
    )
    if rewards is None:
        return None
    pair_counts, train_counts = (artifact.manifest["counts"] if artifact else {} for artifact in (pairs, training))
    return {
        **_learnable_share(rewards),
        **_utility_figures(utilities),
        "pairs": pair_counts.get("pair"),
        "replayed_pairs": pair_counts.get("replayed"),
        "steps": train_counts.get("steps"),
        "training": training.manifest.get("training") if training else None,
    }


def _learnable_share(rewards: Artifact) -> dict[str, float | None]:
    matrix = reward_matrix(read_table(rewards.content, ["rewards"])["rewards"])
    scored_rewards = matrix[np.isfinite(matrix).all(axis=1)]
    share = float(learnable(scored_rewards)[0].mean()) if len(scored_rewards) else None
    return {"scored_children": len(scored_rewards), "learnable_share": share}


def _utility_figures(utilities: Artifact | None) -> dict[str, float | None]:
    if utilities is None:
        return {"valid_share": None, "mean_utility": None}
    table = read_table(utilities.content, ["valid", "utility"])
    return {"valid_share": pc.mean(table["valid"]).as_py(), "mean_utility": pc.mean(table.filter(table["valid"])["utility"]).as_py()}
