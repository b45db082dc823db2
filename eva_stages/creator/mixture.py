"""The next prompt set: mostly evolved prompts, and a uniform sample of the current set, the buffer [paper, Algorithm 1, line 5].

Optionally it also has prompts of earlier sets that were very informative when they were last scored.
"""

from collections.abc import Generator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eva_stages.core.distil import TableStep
from eva_stages.core.errors import DataError
from eva_stages.core.fingerprint import derive_seed, uniforms
from eva_stages.core.rows import SCHEMAS
from eva_stages.core.tables import Rows, first_places, take


def sample(ids: pa.Array, size: int, seed: int) -> np.ndarray:
    """The row numbers of `size` uniformly sampled prompts without replacement, ascending."""
    return np.sort(np.argsort(uniforms(seed, ids), kind="stable")[:size])


class Replay(TableStep):
    """The most informative prompts of earlier sets that are not in the current set (PLR, Jiang et al. 2021).
    Inputs: the current set, then the earlier sets, each followed by its informativeness, oldest first. A prompt's value is the one from its
    last scoring, by the policy of that time; replayed prompts are scored again. Metrics that depend on the complete set (of ensembles, the
    inverse metrics) are only roughly comparable between iterations.

    Attributes:
        share: of the size of the present set.
        metric: column that ranks the prompts, highest first; ties at random.
    Input columns:
        - the columns of a prompt row (sets); prompt_id, `metric` (informativeness)
    Output columns:
        - the columns of a prompt row, informativeness
    Categories:
        - filtering
    """

    share: float = 0.1
    metric: str = "reward_gap"
    seed: int = 0

    @property
    def inputs(self) -> Sequence[str]:
        return [*SCHEMAS["prompts"].names, self.metric]

    writes = [*SCHEMAS["prompts"].names, "informativeness"]

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        present, *earlier = sources
        sets, infos = earlier[::2][::-1], earlier[1::2][::-1]
        set_columns = [self._ids_and_values(*pair) for pair in zip(sets, infos, strict=True)]
        ids, values = (pa.concat_arrays(columns) for columns in zip(*set_columns, strict=True))
        is_lost = pc.invert(pc.is_in(ids, value_set=present["prompt_id"]))
        pool = first_places(ids)
        pool = pool[pc.and_(is_lost, pc.is_valid(values)).to_numpy(zero_copy_only=False)[pool]]
        size = round(self.share * len(present))
        worth = values.take(pa.array(pool)).to_numpy()
        best = pool[np.lexsort((uniforms(self.seed, ids.take(pa.array(pool))), -worth))[:size]]
        row = 0
        for table in take(sets, best, SCHEMAS["prompts"].names):
            worths = values.take(pa.array(best[row : row + len(table)]))
            row += len(table)
            yield table.append_column("informativeness", worths)
        return {"pool": len(pool), "replay_short": size - len(best)}

    def _ids_and_values(self, prompts: Rows, info: Rows) -> tuple[pa.Array, pa.Array]:
        ids = prompts["prompt_id"]
        if not ids.equals(info["prompt_id"]):
            raise DataError("the earlier prompt set and its informativeness have different prompt ids")
        return ids, info[self.metric]


class Mix(TableStep):
    """Samples evolved prompts and the buffer. Inputs: the curated evolutions, the current prompt set, optionally replayed prompts.
    The result has the size of the current set. The buffer replaces missing evolved or replayed prompts. No prompt occurs twice.

    Input columns:
        - the columns of a prompt row
    Output columns:
        - the columns of a prompt row, origin (evolved | buffer | replay)
    Categories:
        - filtering
    """

    evolved_share: float = 0.8
    seed: int = 0

    reads = SCHEMAS["prompts"].names
    writes = SCHEMAS["mixed"].names

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        evolved, present, *replay_sources = sources
        size = len(present)
        evolved_size = round(self.evolved_share * size)
        new, old = evolved["prompt_id"], present["prompt_id"]
        evolved_places = sample(new, evolved_size, derive_seed(self.seed, "evolved"))
        if len(evolved_places) == 0 and evolved_size:
            raise DataError("all evolved prompts were rejected, so there are no new prompts; see the rejections of the evolve stage")
        other_ids = pa.concat_arrays([new.take(pa.array(evolved_places)), old])
        replay_places = [_places_of_others(rows["prompt_id"], other_ids)[: size - len(evolved_places)] for rows in replay_sources]
        buffer = sample(old, size - len(evolved_places) - sum(map(len, replay_places)), derive_seed(self.seed, "buffer"))
        replays = ((rows, places, "replay") for rows, places in zip(replay_sources, replay_places, strict=True))
        parts = [(evolved, evolved_places, "evolved"), (present, buffer, "buffer"), *replays]
        for rows, places, origin in parts:
            for table in rows.take(places, SCHEMAS["prompts"].names):
                yield table.append_column("origin", pa.repeat(origin, len(table))).cast(SCHEMAS["mixed"])
        return {**{origin: len(places) for _, places, origin in parts}, "evolved_short": evolved_size - len(evolved_places)}


def _places_of_others(ids: pa.Array, known_ids: pa.Array) -> np.ndarray:
    return np.flatnonzero(pc.invert(pc.is_in(ids, value_set=known_ids)))
