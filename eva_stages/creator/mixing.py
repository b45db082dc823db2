"""The next prompt set: mostly evolved prompts, and a uniform buffer of the present ones [paper, Algorithm 1, line 5]."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from eva_stages.core.distil import TableStep
from eva_stages.core.errors import DataError
from eva_stages.core.fingerprint import derive_seed, uniforms
from eva_stages.core.rows import SCHEMAS


def sample(table: pa.Table, size: int, seed: int) -> pa.Table:
    """`size` rows drawn uniformly without replacement, in their order in the table."""
    chosen = np.argsort(uniforms(seed, table["prompt_id"].to_pylist()), kind="stable")[:size]
    return table.take(pa.array(np.sort(chosen)))


class Mix(TableStep):
    """Draws evolved prompts and buffered ones. Inputs: the curated evolutions, then the present prompt set.

    The result has the size of the present set where there are enough evolved prompts; a shortfall is filled from the buffer.

    Output columns:
        - the columns of a prompt row, origin (evolved | buffer)
    """

    evolved_share: float = 0.8
    seed: int = 0

    @property
    def inputs(self) -> Sequence[str]:
        return SCHEMAS["prompts"].names

    @property
    def outputs(self) -> Sequence[str]:
        return SCHEMAS["mixed"].names

    def transform(self, *tables: pa.Table) -> tuple[pa.Table, dict[str, int]]:
        evolved, present = tables
        size = len(present)
        wanted = round(self.evolved_share * size)
        drawn = sample(evolved, wanted, derive_seed(self.seed, "evolved"))
        buffer = sample(present, size - len(drawn), derive_seed(self.seed, "buffer"))
        if len(drawn) == 0 and wanted:
            raise DataError("no evolved prompt survived, so there is nothing new to train on; see the evolve stage's rejections")
        mixed = pa.concat_tables([_with_origin(drawn, "evolved"), _with_origin(buffer, "buffer")])
        return mixed, {"evolved": len(drawn), "buffer": len(buffer), "evolved_short": wanted - len(drawn)}


def _with_origin(table: pa.Table, origin: str) -> pa.Table:
    return table.append_column("origin", pa.array([origin] * len(table), pa.string())).cast(SCHEMAS["mixed"])
