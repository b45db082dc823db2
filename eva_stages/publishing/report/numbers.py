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
    """Rewards of the answers to a prompt set by prompt; NaN = not known."""

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
    found = table(artifact, ["prompt_id", "rewards"])
    if found is None or not len(found):
        return None
    return Rewards(found["prompt_id"].combine_chunks(), drawable(reward_matrix(found["rewards"])))


def before_and_after(history: History, iteration: int) -> tuple[Rewards, Rewards] | None:
    """Rewards on the prompt set of an iteration, by the policy before training on it and, where eva went on, by the one after."""
    before, after = rewards(history.find("reward", iteration)), rewards(history.find("creator-reward", iteration + 1))
    if before is None or after is None or not before.ids.equals(after.ids):
        return None
    return before, after


def mean_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and its normal 95 % interval over the finite values; NaN if there are none."""
    known = values[np.isfinite(values)]
    if not len(known):
        return np.nan, np.nan, np.nan
    half = 1.96 * known.std(ddof=1) / np.sqrt(len(known)) if len(known) > 1 else 0.0
    return float(known.mean()), float(known.mean() - half), float(known.mean() + half)


def counted(number: int, noun: str) -> str:
    """As in "720 prompts"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def n_of(counts: Iterable[int], noun: str) -> str:
    """How much is behind a plot, as in "n = 720 prompts each", "n = 720, 710 prompts" or "n = 120 to 1,000 games"."""
    known = [int(count) for count in counts]
    if len(set(known)) == 1:
        return f"n = {known[0]:,} {noun}{' each' if len(known) > 1 else ''}"
    shown = ", ".join(f"{count:,}" for count in known) if len(known) <= MOST_COUNTS else f"{min(known):,} to {max(known):,}"
    return f"n = {shown} {noun}"


def sizes(samples: Mapping[str, np.ndarray], noun: str) -> str:
    """The same, of known values."""
    return n_of((int(np.isfinite(values).sum()) for values in samples.values()), noun)
