"""One preference pair per prompt: the response with the highest reward against the one with the lowest [paper, 3.3.2].

A prompt gives no pair, and is counted, if one of its responses could not be scored, if its rewards are all equal, if their gap is
too small, or if the best response is empty.
"""

from collections.abc import Generator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eva_stages.core.distil import TableStep
from eva_stages.core.errors import DataError
from eva_stages.core.rows import SCHEMAS, TOKENS, one_message
from eva_stages.core.tables import Rows, aligned_batches, check_same_order, reward_matrix

FATES = ("pair", "unscored", "all_equal", "small_gap", "empty")


def best_and_worst(rewards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the highest and the lowest reward in each row of (prompts, n); the first of equals."""
    return rewards.argmax(axis=1), rewards.argmin(axis=1)


class MakePairs(TableStep):
    """Best against worst. Inputs: prompts, responses, rewards, with the same ids in the same order.

    Input columns:
        - prompt_id, messages; prompt_id, responses, perhaps response_ids; prompt_id, rewards, perhaps win_probability
    Output columns:
        - prompt_id, prompt, chosen, rejected (chat messages), chosen_reward, rejected_reward, chosen_win_probability,
          rejected_win_probability (null where the reward is pointwise), chosen_ids, rejected_ids (as sampled; null where not known)
    Categories:
        - preference
    """

    min_gap: float = 0.0

    reads = {**dict.fromkeys(("prompt_id", "messages", "responses", "rewards"), True), "win_probability": False, "response_ids": False}
    writes = SCHEMAS["pairs"].names

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        check_same_order(sources, "prompts, responses and rewards")
        reward_matrix(sources[2]["rewards"])  # all prompts must have the same number of responses, not only those of a batch
        counts = dict.fromkeys(FATES, 0)
        scores = [name for name in ("rewards", "win_probability") if name in sources[2].names]
        response_columns = [name for name in ("responses", "response_ids") if name in sources[1].names]
        for batch in aligned_batches(sources, (("prompt_id", "messages"), response_columns, scores)):
            pairs, fates = self._pairs(*batch)
            counts = {fate: count + int((fates == fate).sum()) for fate, count in counts.items()}
            yield pairs.filter(pa.array(fates == "pair"))
        if counts["pair"] == 0:
            raise DataError(f"no prompt gives a preference pair, so there is nothing to train on: {counts}")
        return counts

    def _pairs(self, prompts: pa.Table, responses: pa.Table, rewards: pa.Table) -> tuple[pa.Table, np.ndarray]:
        """A pair for every prompt, and its outcome: one of `FATES`."""
        matrix = reward_matrix(rewards["rewards"])
        is_scored = np.isfinite(matrix).all(axis=1)
        safe = np.where(is_scored[:, None], matrix, 0.0)
        best, worst = best_and_worst(safe)
        rows = np.arange(len(matrix))
        with np.errstate(over="ignore"):  # an infinite gap is a gap
            gap = safe[rows, best] - safe[rows, worst]
        texts = responses["responses"].combine_chunks().flatten()
        places = [pa.array(rows * matrix.shape[1] + index) for index in (best, worst)]
        chosen, rejected = (texts.take(place) for place in places)
        chosen_ids, rejected_ids = (_sampled_ids(responses, matrix.shape[1]).take(place) for place in places)
        empty = pc.equal(pc.utf8_trim_whitespace(pc.fill_null(chosen, "")), "").to_numpy(zero_copy_only=False)
        fates = np.select([~is_scored, gap == 0, gap <= self.min_gap, empty], FATES[1:], FATES[0])
        wins = _win_probabilities(rewards, matrix.shape)
        pairs = {
            "prompt_id": prompts["prompt_id"],
            "prompt": prompts["messages"],
            "chosen": one_message(chosen),
            "rejected": one_message(rejected),
            "chosen_reward": safe[rows, best],
            "rejected_reward": safe[rows, worst],
            "chosen_win_probability": pa.array(wins[rows, best], from_pandas=True),
            "rejected_win_probability": pa.array(wins[rows, worst], from_pandas=True),
            "chosen_ids": chosen_ids,
            "rejected_ids": rejected_ids,
        }
        return pa.table(pairs).cast(SCHEMAS["pairs"]), fates


def _sampled_ids(responses: pa.Table, n: int) -> pa.Array:
    """The token ids of all responses, n of each prompt, one after another; null where they are not known."""
    if "response_ids" not in responses.column_names:
        return pa.nulls(len(responses) * n, TOKENS)
    column = responses["response_ids"].combine_chunks()
    if column.null_count == 0:
        return column.flatten()
    return pa.array([ids for row in column.to_pylist() for ids in row or [None] * n], TOKENS)


def _win_probabilities(rewards: pa.Table, shape: tuple[int, ...]) -> np.ndarray:
    """Mean win probability of each response, shape (prompts, n); NaN where the reward does not compare responses."""
    return reward_matrix(rewards["win_probability"]) if "win_probability" in rewards.column_names else np.full(shape, np.nan)
