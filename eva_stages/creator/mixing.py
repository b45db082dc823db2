"""The next prompt set: mostly evolved prompts, and a uniform buffer of the present ones [paper, Algorithm 1, line 5].

Optionally also prompts of earlier sets that were very informative when they were last answered.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eva_stages.core.distil import TableStep
from eva_stages.core.errors import DataError
from eva_stages.core.fingerprint import derive_seed, uniforms
from eva_stages.core.rows import SCHEMAS


def sample(table: pa.Table, size: int, seed: int) -> pa.Table:
    """`size` rows drawn uniformly without replacement, in their order in the table."""
    chosen = np.argsort(uniforms(seed, table["prompt_id"].to_pylist()), kind="stable")[:size]
    return table.take(pa.array(np.sort(chosen)))


class Replay(TableStep):
    """The most informative prompts of earlier sets that the present one has lost (PLR, Jiang et al. 2021).

    Inputs: the present set, then the earlier sets, each followed by its informativeness, oldest first. A prompt counts with what it was
    worth when it was last scored, to the policy of that time; prompts that come back are scored again and can sink. The values of
    metrics that depend on the whole set (ensembles, the inverse ones) are only roughly comparable between iterations.

    Attributes:
        share: of the size of the present set.
        metric: column that ranks the prompts, highest first; ties at random.

    Input columns:
        - the columns of a prompt row (sets); prompt_id, `metric` (informativeness)
    Output columns:
        - the columns of a prompt row, informativeness
    """

    share: float = 0.1
    metric: str = "reward_gap"
    seed: int = 0

    @property
    def inputs(self) -> Sequence[str]:
        return [*SCHEMAS["prompts"].names, self.metric]

    @property
    def outputs(self) -> Sequence[str]:
        return [*SCHEMAS["prompts"].names, "informativeness"]

    def transform(self, *tables: pa.Table) -> tuple[pa.Table, dict[str, int]]:
        present, *earlier = tables
        pool = pa.concat_tables([self._scored(*pair) for pair in zip(earlier[::2], earlier[1::2], strict=True)][::-1])
        _, latest = np.unique(pool["prompt_id"].to_numpy(zero_copy_only=False), return_index=True)
        pool = pool.take(pa.array(np.sort(latest)))
        lost = pc.invert(pc.is_in(pool["prompt_id"], value_set=present["prompt_id"].combine_chunks()))
        pool = pool.filter(pc.and_(lost, pc.is_valid(pool["informativeness"])))
        wanted = round(self.share * len(present))
        draws = uniforms(self.seed, pool["prompt_id"].to_pylist())
        best = np.lexsort((draws, -pool["informativeness"].to_numpy()))[:wanted]
        return pool.take(pa.array(best)), {"pool": len(pool), "replay_short": wanted - len(best)}

    def _scored(self, prompts: pa.Table, info: pa.Table) -> pa.Table:
        if not prompts["prompt_id"].equals(info["prompt_id"]):
            raise DataError("the informativeness is not that of the earlier prompt set")
        return prompts.select(SCHEMAS["prompts"].names).append_column("informativeness", info[self.metric])


class Mix(TableStep):
    """Draws evolved prompts and buffered ones. Inputs: the curated evolutions, the present prompt set, and perhaps replayed prompts.

    The result has the size of the present set where there are enough evolved prompts; a shortfall is filled from the buffer, and so is
    what there is too little to replay of. No prompt is in it twice.

    Output columns:
        - the columns of a prompt row, origin (evolved | buffer | replay)
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
        evolved, present, *replayed = tables
        size = len(present)
        wanted = round(self.evolved_share * size)
        drawn = sample(evolved, wanted, derive_seed(self.seed, "evolved"))
        if len(drawn) == 0 and wanted:
            raise DataError("no evolved prompt survived, so there is nothing new to train on; see the evolve stage's rejections")
        known = pa.chunked_array([*drawn["prompt_id"].chunks, *present["prompt_id"].chunks], pa.string())
        back = [_without(table, known).slice(0, size - len(drawn)) for table in replayed]
        buffer = sample(present, size - len(drawn) - sum(map(len, back)), derive_seed(self.seed, "buffer"))
        parts = [(drawn, "evolved"), (buffer, "buffer"), *((table, "replay") for table in back)]
        mixed = pa.concat_tables([_with_origin(table, origin) for table, origin in parts])
        counts = {origin: len(table) for table, origin in parts}
        return mixed, {**counts, "evolved_short": wanted - len(drawn)}


def _without(table: pa.Table, known: pa.ChunkedArray) -> pa.Table:
    return table.filter(pc.invert(pc.is_in(table["prompt_id"], value_set=known.combine_chunks())))


def _with_origin(table: pa.Table, origin: str) -> pa.Table:
    plain = table.select(SCHEMAS["prompts"].names)
    return plain.append_column("origin", pa.array([origin] * len(table), pa.string())).cast(SCHEMAS["mixed"])
