"""The prioritised buffer of online training: prompts that training returns to, and that evolutions replace from the lowest priority up.

An entry is drawn with probability P = (1 - rho) rank^(-1 / beta) / Z + rho age / Z' [PLR, arXiv:2010.03934]: its rank by score, 1 the
highest, and the steps since its last use, or since its birth. Entries of equal score have equal ranks' mean of rank^(-1 / beta), so that no
order among them decides. All randomness derives from (seed, step), so that a buffer that was saved and read draws what it would have drawn.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from eva_stages.core.config.online_config import Buffer
from eva_stages.core.fingerprint import derive_seed, uniforms
from eva_stages.core.rows import SCHEMAS
from eva_stages.creator.selection import weighted_selection

Row = dict[str, Any]


def rank_weights(scores: np.ndarray, temperature: float) -> np.ndarray:
    """rank^(-1 / temperature), divided by its sum; the highest score has rank 1, and equal scores share the mean of theirs."""
    weights = np.arange(1, len(scores) + 1, dtype=np.float64) ** (-1 / temperature)
    order = np.argsort(-scores, kind="stable")
    _, groups = np.unique(-scores[order], return_inverse=True)
    shared_weights = np.empty(len(scores))
    shared_weights[order] = (np.bincount(groups, weights=weights) / np.bincount(groups))[groups]
    return shared_weights / weights.sum()


def draw_probabilities(scores: np.ndarray, ages: np.ndarray, staleness: float, temperature: float) -> np.ndarray:
    """P of every entry, shape (entries,); where all ages are 0, the part by rank alone."""
    by_rank = rank_weights(scores, temperature)
    total = ages.sum()
    return (1 - staleness) * by_rank + staleness * ages / total if total > 0 else by_rank


@dataclass(frozen=True)
class Entry:
    """A prompt of the buffer."""

    prompt: Row
    """A row of the schema `prompts`."""
    score: float
    """Its metric when it was last scored; of an evolution that was not used yet that of its parent."""
    birth: int
    """Step at which it entered."""
    last_use: int
    """Step at which it was last trained on, or its birth."""

    @property
    def prompt_id(self) -> str:
        return str(self.prompt["prompt_id"])


class PromptBuffer:
    """At most `settings.size` different prompts; without settings any number, of which none can be drawn."""

    def __init__(self, settings: Buffer | None, entries: Iterable[Entry] = ()) -> None:
        self._settings = settings
        self._entries = {entry.prompt_id: entry for entry in entries}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, prompt_id: str) -> bool:
        return prompt_id in self._entries

    @property
    def entries(self) -> list[Entry]:
        return list(self._entries.values())

    def probabilities(self, step: int) -> np.ndarray:
        """P of every entry at a step, shape (entries,)."""
        entries = self.entries
        assert self._settings is not None
        if self._settings.priority == "uniform":
            return np.full(len(entries), 1 / max(1, len(entries)))
        scores = np.array([entry.score for entry in entries], dtype=np.float64)
        ages = np.array([step - entry.last_use for entry in entries], dtype=np.float64)
        return draw_probabilities(scores, ages, self._settings.staleness, self._settings.temperature)

    def draw(self, step: int, count: int, seed: int, excluded_ids: Collection[str] = ()) -> list[Entry]:
        """Draw up to `count` entries without replacement, in the order drawn, and note their use.

        Args:
            excluded_ids: ids of prompts that the step has already.
        """
        if not count:
            return []
        entries, weights = self.entries, self.probabilities(step)
        places = np.array([place for place, entry in enumerate(entries) if entry.prompt_id not in excluded_ids], dtype=np.int64)
        if not len(places):
            return []
        draws = uniforms(derive_seed(seed, "buffer", step), pa.array([entries[place].prompt_id for place in places]))
        drawn_entries = [entries[place] for place in places[weighted_selection(weights[places], draws, count)]]
        self.note_uses(step, [entry.prompt_id for entry in drawn_entries])
        return drawn_entries

    def note_uses(self, step: int, prompt_ids: Iterable[str]) -> None:
        """The step is the last use of these prompts, as far as they are here."""
        for name in self._entries.keys() & set(prompt_ids):
            self._entries[name] = replace(self._entries[name], last_use=step)

    def note_score(self, prompt_id: str, score: float) -> None:
        if prompt_id in self._entries:
            self._entries[prompt_id] = replace(self._entries[prompt_id], score=score)

    def insert(self, step: int, new_entries: Sequence[Entry]) -> list[str]:
        """Insert prompts that are not here yet, over the entries with the lowest P, the oldest first; returns the ids of these.

        More new entries than the buffer holds compete by their scores.
        """
        if self._settings is None or len(self) + len(new_entries) <= self._settings.size:
            self._entries |= {entry.prompt_id: entry for entry in new_entries}
            return []
        best = {entry.prompt_id for entry in sorted(new_entries, key=lambda entry: -entry.score)[: self._settings.size]}
        entries = self.entries
        births = np.array([entry.birth for entry in entries], dtype=np.int64)
        excess = len(self) + len(best) - self._settings.size
        evicted_ids = [entries[place].prompt_id for place in np.lexsort((births, self.probabilities(step)))[:excess]]
        for name in evicted_ids:
            del self._entries[name]
        self._entries |= {entry.prompt_id: entry for entry in new_entries if entry.prompt_id in best}
        return evicted_ids

    def table(self) -> pa.Table:
        """A row per entry, in the order in which they entered."""
        rows = [{**entry.prompt, "score": entry.score, "birth": entry.birth, "last_use": entry.last_use} for entry in self.entries]
        return pa.Table.from_pylist(rows, schema=SCHEMAS["buffered"])


def read_entries(file: Path) -> list[Entry]:
    """The entries in a file with a buffer's table."""
    own_columns = ("score", "birth", "last_use")
    return [
        Entry({name: value for name, value in row.items() if name not in own_columns}, *(row[name] for name in own_columns))
        for row in pq.read_table(file).to_pylist()
    ]
