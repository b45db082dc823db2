"""The utility of evolutions for the training of the creator.

u(c) = m(c) - penalty * similarity of c to the nearest earlier prompt, for a valid evolution c, m a metric; an invalid one has 0. An
evolution is valid if neither evolving nor a filter nor the gate rejected it and no evaluation set contains it. One that was left out only
as a duplicate is valid, with the similarity 1, unless there is a gate that never saw it. The utility is null after a failed call, and where
a verdict or a reward is missing: also for a repeated evolution with another reference than the one that was judged and rewarded.
"""

from collections import Counter
from collections.abc import Generator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eva_stages.core.distil import TableStep
from eva_stages.core.named_functions import FunctionCode
from eva_stages.core.parts import FAILED_CALLS
from eva_stages.core.rows import SCHEMAS
from eva_stages.core.tables import Rows, first_places, reward_matrix
from eva_stages.creator.curation import passing_places
from eva_stages.creator.function_calls import metric_values
from eva_stages.creator.informativeness import spread_at_median
from eva_stages.creator.learnability import learnability
from eva_stages.creator.novelty import similarity_to_memory

METRICS = {"spread_at_median": spread_at_median, "learnability": learnability}


def utilities(valid: np.ndarray, spread: np.ndarray, similarity: np.ndarray, penalty: float) -> np.ndarray:
    """u of each evolution, NaN where it is unknown.

    Args:
        valid: 1, 0, or NaN where it is unknown, shape (n,).
        spread: the metric, shape (n,); NaN where unknown.
        similarity: shape (n,); NaN where unknown.
    """
    return np.where(valid == 0, 0.0, np.where(valid == 1, spread - penalty * similarity, np.nan))


class Children(TableStep):
    """The evolutions that neither evolving nor a filter rejected, each prompt once.

    Attributes:
        filters: as in `Curate`.

    Input columns:
        - the columns of a prompt row, rejected
    Output columns:
        - the columns of a prompt row
    Categories:
        - filtering
    """

    filters: Sequence[FunctionCode] = ()

    reads = [*SCHEMAS["prompts"].names, "rejected"]
    writes = SCHEMAS["prompts"].names

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        (evolutions,) = sources
        counts = Counter[str]()
        usable = passing_places(evolutions, np.flatnonzero(evolutions["rejected"].is_null()), self.filters, counts)
        places = usable[first_places(evolutions["prompt_id"].take(pa.array(usable)))]
        for table in evolutions.take(places, SCHEMAS["prompts"].names):
            yield table.cast(SCHEMAS["prompts"])
        return {"evolved": len(evolutions), "children": len(places), **counts}


class Utilities(TableStep):
    """The utility of every evolution, in the order of the evolutions.

    Inputs: the evolutions, the `Children`, the rewards of the policy's responses to those (with a gate, to those that passed it), the ones
    that are no duplicates, the earlier prompt sets, and optionally the embeddings of the ones that are no duplicates and of the earlier
    prompt sets, and the gate's verdicts.

    Attributes:
        metric: one of `METRICS`; the column of its values is `spread` for each of them.

    Input columns:
        - prompt_id, parent_id, reference, rejected; prompt_id, reference; prompt_id, rewards; prompt_id, messages; prompt_id, messages;
          prompt_id, embedding; prompt_id, valid
    Output columns:
        - prompt_id, parent_id, valid (null where unknown), spread, similarity, utility (null where unknown)
    Categories:
        - scorer
    """

    similarity_penalty: float = 0.3
    metric: str = "spread_at_median"

    reads = {"prompt_id": True, **dict.fromkeys(("messages", "parent_id", "reference", "rejected", "rewards", "embedding", "valid"), False)}
    writes = ["prompt_id", "parent_id", "valid", "spread", "similarity", "utility"]

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        evolutions, children, rewards, new_prompts, *other_sources = sources
        memory, embeddings, verdicts = _by_columns(other_sources)
        ids = evolutions["prompt_id"]
        valid = _validity(evolutions, children, verdicts)
        spread = _of_ids(ids, rewards["prompt_id"], metric_values(METRICS[self.metric], reward_matrix(rewards["rewards"])))
        similarity = _similarity(ids, new_prompts, memory, embeddings)
        for values in (spread, similarity):
            values[valid != 1] = np.nan
        utility = utilities(valid, spread, similarity, self.similarity_penalty)
        columns = {"valid": pa.array(valid, from_pandas=True).cast(pa.bool_())}
        columns |= {
            name: pa.array(values, from_pandas=True)
            for name, values in (("spread", spread), ("similarity", similarity), ("utility", utility))
        }
        yield pa.table({"prompt_id": ids, "parent_id": evolutions["parent_id"], **columns})
        return {"valid": int((valid == 1).sum()), "invalid": int((valid == 0).sum()), "unknown": int(np.isnan(utility).sum())}


def _validity(evolutions: Rows, children: Rows, verdicts: Sequence[Rows]) -> np.ndarray:
    """1, 0, or NaN where it is unknown, for each evolution."""
    ids, rejected = evolutions["prompt_id"], evolutions["rejected"]
    places = pc.index_in(ids, value_set=children["prompt_id"])
    is_child = _array(pc.and_(rejected.is_null(), places.is_valid()))
    valid = np.where(_array(pc.fill_null(pc.equal(rejected, FAILED_CALLS), False)), np.nan, is_child.astype(float))
    for rows in verdicts:
        valid = np.where(is_child, _of_ids(ids, rows["prompt_id"], _array(rows["valid"].cast(pa.float64()))), valid)
    references, judged_references = (column.fill_null("") for column in (evolutions["reference"], children["reference"].take(places)))
    return np.where(is_child & _array(pc.not_equal(references, judged_references)), np.nan, valid)


def _by_columns(sources: Sequence[Rows]) -> tuple[list[Rows], ...]:
    """Prompt sets, embeddings and verdicts."""
    return tuple([rows for rows in sources if name in rows.names] for name in ("messages", "embedding", "valid"))


def _similarity(ids: pa.Array, new_prompts: Rows, memory: Sequence[Rows], embeddings: Sequence[Rows]) -> np.ndarray:
    """Of each evolution to the nearest earlier prompt: 1 for a duplicate, also of another evolution of the iteration."""
    similarity = _of_ids(ids, new_prompts["prompt_id"], similarity_to_memory(new_prompts, memory, embeddings))
    is_first = np.zeros(len(ids), dtype=bool)
    is_first[first_places(ids)] = True
    return np.where(is_first & ~np.isnan(similarity), similarity, 1.0)


def _of_ids(ids: pa.Array, known_ids: pa.Array, values: np.ndarray) -> np.ndarray:
    """The value of each id; NaN where it has none."""
    places = pc.index_in(ids, value_set=known_ids)
    return pa.array(values, from_pandas=True).take(places).to_numpy(zero_copy_only=False).astype(float)


def _array(column: pa.Array) -> np.ndarray:
    return np.asarray(column.to_numpy(zero_copy_only=False))
