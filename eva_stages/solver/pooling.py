"""The pairs of several iterations as one training set, for a solver that starts from scratch [paper, table 5]."""

from collections.abc import Generator

import pyarrow as pa

from eva_stages.core.distil import TableStep
from eva_stages.core.rows import SCHEMAS
from eva_stages.core.tables import Rows, first_places, take


class PoolPairs(TableStep):
    """All pairs, oldest first; a prompt that gave pairs in several iterations keeps its first. Inputs: one table of pairs per iteration.

    So the pool of iteration t has the original prompts' pairs with the base policy's responses, and each evolved prompt's pair with
    responses of its iteration's policy.

    Input columns:
        - the columns of a pair row
    Output columns:
        - the columns of a pair row
    Categories:
        - preference
    """

    reads = {**dict.fromkeys(SCHEMAS["rewritten_pairs"].names, False), **dict.fromkeys(SCHEMAS["pairs"].names, True)}
    writes = SCHEMAS["pairs"].names

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        total = sum(map(len, sources))
        first = first_places(pa.concat_arrays([rows["prompt_id"] for rows in sources]))
        yield from take(sources, first)
        return {"pair": len(first), "repeated": total - len(first)}
