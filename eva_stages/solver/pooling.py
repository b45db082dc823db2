"""The pairs of several iterations as one training set, for a solver that starts from scratch [paper, table 5]."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from eva_stages.core.distil import TableStep
from eva_stages.core.rows import SCHEMAS


class PoolPairs(TableStep):
    """All pairs, oldest first; a prompt that gave pairs in several iterations keeps its first. Inputs: one table of pairs per iteration.

    So the pool of iteration t holds the original prompts' pairs as theta_0 answered them, and each evolved prompt's as the policy of
    its iteration did.

    Output columns:
        - the columns of a pair row
    """

    @property
    def inputs(self) -> Sequence[str]:
        return list(dict.fromkeys([*SCHEMAS["pairs"].names, *SCHEMAS["rewritten_pairs"].names]))

    @property
    def outputs(self) -> Sequence[str]:
        return SCHEMAS["pairs"].names

    def transform(self, *tables: pa.Table) -> tuple[pa.Table, dict[str, int]]:
        together = pa.concat_tables(tables)
        numbered = pa.table({"prompt_id": together["prompt_id"], "row": np.arange(len(together))})
        first = numbered.group_by("prompt_id").aggregate([("row", "min")])["row_min"].sort()
        pooled = together.take(first)
        return pooled, {"pair": len(pooled), "repeated": len(together) - len(pooled)}
