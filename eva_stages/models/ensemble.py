"""Ensemble rewards. Each member scores in a separate stage; this step standardises and combines their scores."""

from collections.abc import Generator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eva_stages.core.distil import TableStep
from eva_stages.core.numeric import homogeneous
from eva_stages.core.tables import Rows, aligned_batches, check_same_order, reward_matrix


@homogeneous(degree=0)
def standardise(rewards: np.ndarray) -> np.ndarray:
    """(r - mean) / std over all finite entries; 0 where all rewards are equal."""
    finite = rewards[np.isfinite(rewards)]
    deviation = finite.std() if len(finite) else 0.0
    centred_rewards = rewards - (finite.mean() if len(finite) else 0.0)
    return centred_rewards / deviation if deviation > 0 else centred_rewards


def combine_rewards(members: np.ndarray, weights: np.ndarray, how: str) -> np.ndarray:
    """Combine the rewards of several members.

    Args:
        members: standardised rewards, shape (members, prompts, n); NaN = not scored.
        weights: shape (members,).
        how: `mean` (weighted) or `worst` (the lowest member).

    Returns:
        Shape (prompts, n); NaN where any member has none, because a mean over fewer members is not comparable.
    """
    if how == "worst":
        return members.min(axis=0)
    return np.tensordot(weights / weights.sum(), members, axes=1)


class CombineRewards(TableStep):
    """The ensemble's rewards. Inputs: one rewards table per member, with the same prompts in the same order.

    Input columns:
        - prompt_id, rewards
    Output columns:
        - prompt_id, rewards, failures, members (the members' standardised rewards, n lists)
    Categories:
        - scorer
    """

    weights: list[float]
    combine: str = "mean"

    reads = ["prompt_id", "rewards", "failures"]
    writes = ["prompt_id", "rewards", "failures", "members"]

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        check_same_order(sources, "the rewards of the ensemble's members")
        members = np.stack([standardise(reward_matrix(rows["rewards"])) for rows in sources])
        rewards = combine_rewards(members, np.array(self.weights), self.combine)
        next_row = 0
        for batch in aligned_batches(sources, [("prompt_id", "failures")] * len(sources)):
            rows = slice(next_row, next_row + len(batch[0]))
            next_row = rows.stop
            offsets = _offsets(*rewards[rows].shape)
            reasons = pc.coalesce(*(table["failures"].combine_chunks().flatten() for table in batch))
            scores = np.moveaxis(members[:, rows], 0, -1).reshape(-1, len(members))
            columns = {
                "prompt_id": batch[0]["prompt_id"],
                "rewards": _lists(rewards[rows]),
                "failures": pa.ListArray.from_arrays(offsets, reasons),
                "members": pa.ListArray.from_arrays(offsets, _lists(scores)),
            }
            yield pa.table(columns)
        return {"responses": int(rewards.size), "unscored": int(np.isnan(rewards).sum())}


def _lists(values: np.ndarray) -> pa.ListArray:
    """Shape (rows, n) as a list column, NaN as null."""
    return pa.ListArray.from_arrays(_offsets(*values.shape), pa.array(values.reshape(-1), from_pandas=True))


def _offsets(rows: int, n: int) -> pa.Array:
    return pa.array(np.arange(rows + 1) * n, pa.int32())
