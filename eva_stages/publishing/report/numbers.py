"""The numbers behind the plots, read column by column from a run's artifacts as arrays."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eva_stages.core.numeric import drawable
from eva_stages.core.tables import read_table, reward_matrix
from eva_stages.views.history import Artifact, History

MOST_COUNTS = 4


def table(artifact: Artifact | None, columns: list[str]) -> pa.Table | None:
    """Columns of an artifact's rows; None if there is no artifact, or it has no rows."""
    return None if artifact is None or artifact.rows is None else read_table(artifact.rows.parent, columns)


def last_texts(messages: pa.ChunkedArray) -> pa.Array:
    """The content of each conversation's last message."""
    array = messages.combine_chunks()
    ends = array.offsets.slice(1)
    return array.values.field("content").take(pc.subtract(ends, 1))


def word_counts(texts: pa.Array) -> np.ndarray:
    words = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(pc.fill_null(texts, "")))
    return pc.list_value_length(words).to_numpy(zero_copy_only=False)


@dataclass(frozen=True)
class Rewards:
    """Rewards of the responses to a prompt set by prompt; NaN = not known."""

    ids: pa.Array
    matrix: np.ndarray
    """Shape (prompts, n)."""

    @cached_property
    def mean(self) -> np.ndarray:
        """Of prompts scored in full, shape (prompts,); NaN for the others, as everywhere in eva."""
        return self.matrix.mean(axis=1)

    @cached_property
    def gap(self) -> np.ndarray:
        return self.matrix.max(axis=1) - self.matrix.min(axis=1)


def rewards(artifact: Artifact | None) -> Rewards | None:
    reward_table = table(artifact, ["prompt_id", "rewards"])
    if reward_table is None or not len(reward_table):
        return None
    return Rewards(reward_table["prompt_id"].combine_chunks(), drawable(reward_matrix(reward_table["rewards"])))


def rewards_around_training(history: History, iteration: int) -> tuple[Rewards, Rewards] | None:
    """Rewards on the prompt set of an iteration, by the policy before training on it and, with a next iteration, by the policy after it."""
    old_rewards, new_rewards = rewards(history.find("reward", iteration)), rewards(history.find("creator-reward", iteration + 1))
    if old_rewards is None or new_rewards is None or not old_rewards.ids.equals(new_rewards.ids):
        return None
    return old_rewards, new_rewards


def mean_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and its normal 95 % interval over the finite values; NaN if there are none."""
    finite_values = values[np.isfinite(values)]
    if not len(finite_values):
        return np.nan, np.nan, np.nan
    half = 1.96 * finite_values.std(ddof=1) / np.sqrt(len(finite_values)) if len(finite_values) > 1 else 0.0
    return float(finite_values.mean()), float(finite_values.mean() - half), float(finite_values.mean() + half)


def n_of(counts: Iterable[int], noun: str) -> str:
    """How much is behind a plot, as in "n = 720 prompts each", "n = 720, 710 prompts" or "n = 120 to 1,000 games"."""
    sizes = [int(count) for count in counts]
    if len(set(sizes)) == 1:
        return f"n = {sizes[0]:,} {noun}{' each' if len(sizes) > 1 else ''}"
    size_text = ", ".join(f"{count:,}" for count in sizes) if len(sizes) <= MOST_COUNTS else f"{min(sizes):,} to {max(sizes):,}"
    return f"n = {size_text} {noun}"


def sizes(samples: Mapping[int, np.ndarray], noun: str) -> str:
    """The same, of known values."""
    return n_of((int(np.isfinite(values).sum()) for values in samples.values()), noun)
