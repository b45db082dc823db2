"""The seed prompts of online training, without an end."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from eva_stages.core.rows import SCHEMAS, Message
from eva_stages.core.tables import FILE

Row = dict[str, Any]


class Originals:
    """Prompts in an order that is a function of (seed, epoch), as offline training takes them; a group never spans two epochs.

    `position`: the epoch, and how many of its prompts were taken; it can be saved and set.
    """

    def __init__(self, table: pa.Table, seed: int) -> None:
        self.table, self._seed = table, seed
        self.position = [0, 0]

    def take(self, count: int) -> list[Row]:
        """The next prompts; the rest of an epoch with fewer is left out."""
        epoch, start = self.position
        if start + count > len(self.table):
            epoch, start = epoch + 1, 0
        self.position = [epoch, start + count]
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self.table))
        rows: list[Row] = self.table.take(pa.array(order[start : start + count])).to_pylist()
        return rows

    def take_others(self, count: int, known_ids: Collection[str]) -> list[Row]:
        """The next prompts that are not among those with `known_ids`; there have to be enough of them."""
        rows: dict[str, Row] = {}
        while len(rows) < count:
            (row,) = self.take(1)
            if row["prompt_id"] not in known_ids:
                rows[row["prompt_id"]] = row
        return list(rows.values())


def fitting_prompts(folder: Path, fits: Callable[[Sequence[Message]], bool]) -> pa.Table:
    """The prompts of an artifact that leave room for a response."""
    table = pq.read_table(folder / FILE, columns=SCHEMAS["prompts"].names)
    return table.filter(pa.array([fits(messages) for messages in table["messages"].to_pylist()], pa.bool_())).combine_chunks()
