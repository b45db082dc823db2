"""Pairs of sibling evolutions that the creator trains on: the same meta-prompt, a better and a worse reply.

A valid evolution beats an invalid one, whatever their utilities. Two valid ones make a pair if their utilities differ by more than half the
standard deviation of the utilities of the iteration's valid evolutions. Two invalid ones, a missing utility or two equal replies make none.
"""

from collections.abc import Generator, Sequence
from itertools import combinations
from typing import Literal

import numpy as np
import pyarrow as pa

from eva_stages.core.distil import TableStep
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.rows import SCHEMAS, one_message
from eva_stages.core.tables import BATCH, Rows, check_same_order, rechunk, take

MARGIN = 0.5
"""In standard deviations."""
OF_PAIR = SCHEMAS["creator_pairs"]
Pair = tuple[int, int]
"""Places of the better and the worse evolution."""


def least_difference(valid: np.ndarray, utility: np.ndarray) -> float:
    """Half the standard deviation of the known utilities of valid evolutions; 0 without any."""
    known_values = utility[(valid == 1) & np.isfinite(utility)]
    return MARGIN * float(known_values.std()) if len(known_values) else 0.0


def sibling_pairs(valid: np.ndarray, utility: np.ndarray, margin: float) -> list[Pair]:
    """The pairs of one parent's evolutions, by falling difference of utility.

    Args:
        valid: 1 or 0, shape (n,); an evolution without a utility is in no pair.
        margin: two valid evolutions must differ by more.
    """
    pairs = []
    for first, second in combinations(np.flatnonzero(np.isfinite(utility)).tolist(), 2):
        better, worse = (first, second) if (valid[first], utility[first]) >= (valid[second], utility[second]) else (second, first)
        difference = float(utility[better] - utility[worse])
        if valid[better] > valid[worse] or (valid[better] == 1 and difference > margin):
            pairs.append((difference, better, worse))
    return [(better, worse) for _, better, worse in sorted(pairs, key=lambda pair: -pair[0])]


def sibling_rewards(valid: np.ndarray, utility: np.ndarray) -> np.ndarray:
    """The reward of each evolution for RLOO: its utility, at least 0; 0 for an invalid one, NaN without a utility."""
    return np.where(valid == 0, 0.0, np.maximum(utility, 0.0))


def rloo_pairs(rewards: np.ndarray) -> list[Pair]:
    """All pairs of one parent's evolutions with different rewards.

    RLOO's gradient is the sum over all pairs (`losses.sibling_rloo`); those with equal rewards add only their KL term, and are left out.
    """
    places = combinations(np.flatnonzero(np.isfinite(rewards)).tolist(), 2)
    return [pair if rewards[pair[0]] > rewards[pair[1]] else pair[::-1] for pair in places if rewards[pair[0]] != rewards[pair[1]]]


class SiblingPairs(TableStep):
    """The pairs of an iteration, then those that are replayed. Inputs: evolutions, utilities, the pairs of earlier iterations.

    The step has no pairs, and no error, where no evolution is better than a sibling: the creator then stays as it is.

    Attributes:
        objective: `dpo` takes at most `pairs_per_parent` pairs of a parent, `supervised` the first one, `rloo` all.
        preferences: `shuffled` exchanges the evolutions of a pair with probability 1/2.
        replay: share of the pairs that come from earlier iterations.
        iteration: in which the evolutions were written.

    Input columns:
        - prompt_id, parent_id, meta_prompt, reply, reply_ids; prompt_id, valid, utility; the columns of `creator_pairs`
    Output columns:
        - those of `pairs`, with the parent as prompt_id, the meta-prompt as prompt, replies and utilities; iteration
    Categories:
        - preference
    """

    objective: Literal["dpo", "rloo", "supervised"] = "dpo"
    preferences: Literal["utility", "shuffled"] = "utility"
    pairs_per_parent: int = 4
    replay: float = 0.25
    iteration: int = 1
    seed: int = 0

    reads = {"prompt_id": True} | dict.fromkeys(
        ("parent_id", "meta_prompt", "reply", "reply_ids", "valid", "utility", *OF_PAIR.names[1:]), False
    )
    writes = OF_PAIR.names

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        evolutions, utilities, *earlier = sources
        check_same_order((evolutions, utilities), "evolutions and utilities")
        valid, utility = (_numbers(utilities[name]) for name in ("valid", "utility"))
        values = sibling_rewards(valid, utility) if self.objective == "rloo" else utility
        pairs, parents = self._pairs(evolutions, valid, values)
        better, worse = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        is_exchanged = np.random.default_rng(derive_seed(self.seed, "preferences")).random(len(pairs)) < 0.5
        is_exchanged &= self.preferences == "shuffled"
        chosen, rejected = np.where(is_exchanged, worse, better), np.where(is_exchanged, better, worse)
        yield from self._rows(evolutions, chosen, rejected, values[better], values[worse])
        replayed_places = self._replayed_places(len(pairs), earlier)
        if len(replayed_places):
            yield from take(earlier, replayed_places, OF_PAIR.names)
        counts = {"pair": len(pairs), "replayed": len(replayed_places), "without_utility": int(np.isnan(utility).sum())}
        return {**counts, "parents_without_pair": parents - len(np.unique(_codes(evolutions["parent_id"])[better]))}

    def _pairs(self, evolutions: Rows, valid: np.ndarray, values: np.ndarray) -> tuple[list[Pair], int]:
        """The pairs of all parents by places among the evolutions, and the number of parents."""
        codes, ids = _codes(evolutions["parent_id"]), evolutions["prompt_id"].to_pylist()
        limit = {"dpo": self.pairs_per_parent, "supervised": 1}.get(self.objective)
        margin = least_difference(valid, values)
        groups = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1]) if len(codes) else []
        pairs: list[Pair] = []
        for group in groups:
            group_pairs = rloo_pairs(values[group]) if self.objective == "rloo" else sibling_pairs(valid[group], values[group], margin)
            places = [(int(group[better]), int(group[worse])) for better, worse in group_pairs]
            pairs += [(better, worse) for better, worse in places if ids[better] != ids[worse]][:limit]
        return pairs, len(groups)

    def _rows(
        self, evolutions: Rows, chosen: np.ndarray, rejected: np.ndarray, chosen_values: np.ndarray, rejected_values: np.ndarray
    ) -> Generator[pa.Table, None, None]:
        """The pairs as rows, in batches; one empty table if there are none."""
        names = ("parent_id", "meta_prompt", "reply", "reply_ids")
        streams = (rechunk(evolutions.take(places, names), BATCH) for places in (chosen, rejected))
        start = 0
        for winners, losers in zip(*streams, strict=True):
            stop = start + len(winners)
            columns = {
                "prompt_id": winners["parent_id"],
                "prompt": one_message(winners["meta_prompt"].combine_chunks(), "user"),
                "chosen": one_message(winners["reply"].combine_chunks()),
                "rejected": one_message(losers["reply"].combine_chunks()),
                "chosen_reward": chosen_values[start:stop],
                "rejected_reward": rejected_values[start:stop],
                **dict.fromkeys(("chosen_win_probability", "rejected_win_probability"), pa.nulls(len(winners), pa.float64())),
                "chosen_ids": winners["reply_ids"],
                "rejected_ids": losers["reply_ids"],
                "iteration": pa.array([self.iteration] * len(winners), pa.int32()),
            }
            yield pa.table(columns).cast(OF_PAIR)
            start = stop

    def _replayed_places(self, new_count: int, earlier: Sequence[Rows]) -> np.ndarray:
        """Places of the pairs to replay among all earlier ones, which were replayed themselves if their iteration is not the last."""
        iterations = [_numbers(rows["iteration"]) for rows in earlier]
        is_own = np.concatenate([np.zeros(0, dtype=bool), *(numbers == numbers.max(initial=0) for numbers in iterations)])
        size = min(round(new_count * self.replay / (1 - self.replay)), int(is_own.sum()))
        rng = np.random.default_rng(derive_seed(self.seed, "replay"))
        return np.sort(rng.choice(np.flatnonzero(is_own), size, replace=False))


def _codes(parents: pa.Array) -> np.ndarray:
    """A number for each parent, in the order in which they appear."""
    return np.asarray(parents.dictionary_encode().indices.to_numpy())


def _numbers(column: pa.Array) -> np.ndarray:
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False))
