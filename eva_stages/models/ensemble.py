"""Several rewards as one. Each member scores in a stage of its own; here their scores are put on one scale and combined."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eva_stages.core.distil import TableStep
from eva_stages.core.errors import DataError
from eva_stages.core.tables import reward_matrix


def standardise(rewards: np.ndarray) -> np.ndarray:
    """(r - mean) / std over all finite entries; a model that always says the same says 0."""
    finite = rewards[np.isfinite(rewards)]
    deviation = finite.std() if len(finite) else 0.0
    centred = rewards - (finite.mean() if len(finite) else 0.0)
    return centred / deviation if deviation > 0 else centred


def combine_rewards(members: np.ndarray, weights: np.ndarray, how: str) -> np.ndarray:
    """One reward from several.

    Args:
        members: standardised rewards, shape (members, prompts, n); NaN = not scored.
        weights: shape (members,).
        how: `mean` (weighted) or `worst` (the lowest member).

    Returns:
        Shape (prompts, n); NaN where any member has none, because a mean over fewer members is another reward.
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
    """

    weights: list[float]
    combine: str = "mean"

    @property
    def inputs(self) -> Sequence[str]:
        return ["prompt_id", "rewards", "failures"]

    @property
    def outputs(self) -> Sequence[str]:
        return ["prompt_id", "rewards", "failures", "members"]

    def transform(self, *tables: pa.Table) -> tuple[pa.Table, dict[str, int]]:
        ids = tables[0]["prompt_id"]
        if not all(table["prompt_id"].equals(ids) for table in tables):
            raise DataError("the members of the ensemble did not score the same prompts in the same order")
        members = np.stack([standardise(reward_matrix(table["rewards"])) for table in tables])
        rewards = combine_rewards(members, np.array(self.weights), self.combine)
        reasons = pc.coalesce(*(table["failures"].combine_chunks().flatten() for table in tables))
        made = pa.table(
            {
                "prompt_id": ids,
                "rewards": _lists(rewards),
                "failures": pa.ListArray.from_arrays(_offsets(*rewards.shape), reasons),
                "members": pa.ListArray.from_arrays(_offsets(*rewards.shape), _lists(np.moveaxis(members, 0, -1).reshape(-1, len(tables)))),
            }
        )
        return made, {"responses": int(rewards.size), "unscored": int(np.isnan(rewards).sum())}


def _lists(values: np.ndarray) -> pa.ListArray:
    """Shape (rows, n) as a list column, NaN as null."""
    return pa.ListArray.from_arrays(_offsets(*values.shape), pa.array(values.reshape(-1), from_pandas=True))


def _offsets(rows: int, n: int) -> pa.Array:
    return pa.array(np.arange(rows + 1) * n, pa.int32())
