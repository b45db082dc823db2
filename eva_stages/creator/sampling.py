"""Which prompts are evolved: an informative subset, drawn without replacement [paper, Algorithm 1, line 3; table 4]."""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eva_stages.core.distil import TableStep
from eva_stages.core.errors import DataError
from eva_stages.core.fingerprint import uniforms
from eva_stages.core.rows import SCHEMAS

STRATA = 10


def weighted(weights: np.ndarray, draws: np.ndarray, size: int) -> np.ndarray:
    """`size` indices without replacement with probabilities proportional to `weights`, in the order drawn.

    Sorting by Exp(1) / w is the same as drawing one by one (Efraimidis and Spirakis 2006). Where fewer than `size` weights are
    positive, the rest is drawn uniformly from those with none.
    """
    with np.errstate(divide="ignore"):
        times = -np.log(draws) / weights
    return np.lexsort((draws, times))[:size]


def greedy(weights: np.ndarray, draws: np.ndarray, size: int) -> np.ndarray:
    """The `size` largest weights; ties at random."""
    return np.lexsort((draws, -weights))[:size]


def stratified(weights: np.ndarray, draws: np.ndarray, size: int) -> np.ndarray:
    """Equally many from each of ten quantiles of the weights, uniformly within each."""
    ranks = np.empty(len(weights), dtype=np.int64)
    ranks[np.lexsort((draws, weights))] = np.arange(len(weights))
    strata = ranks * STRATA // len(weights)
    order = np.lexsort((draws, strata))
    first = np.searchsorted(strata[order], np.arange(STRATA))
    place = np.empty(len(weights), dtype=np.int64)
    place[order] = np.arange(len(weights)) - first[strata[order]]
    return np.lexsort((draws, place))[:size]


SELECTIONS: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "weighted": weighted,
    "greedy": greedy,
    "stratified": stratified,
}


def balanced(weights: np.ndarray, topics: Sequence[str | None], share: float) -> np.ndarray:
    """w' = (1 - c) w + c * inverse topic frequency, both of sum 1; c is `share`. Prompts without a topic are one of their own."""
    _, topic, count = np.unique([name or "" for name in topics], return_inverse=True, return_counts=True)
    inverse = 1 / count[topic]
    return (1 - share) * weights / weights.sum() + share * inverse / inverse.sum()


class Select(TableStep):
    """Draws the informative subset. A second input with the topics of the prompts makes rare topics likelier.

    Attributes:
        topic_share: c of `balanced`.

    Input columns:
        - prompt_id, weight, uniform (null = not selectable); prompt_id, topic
    Output columns:
        - prompt_id, probability (of a single draw), draw (0 = first)
    """

    kind: str = "weighted"
    fraction: float = 0.25
    topic_share: float = 0.0
    seed: int = 0

    @property
    def inputs(self) -> Sequence[str]:
        return ["prompt_id", "weight", "uniform", "topic"]

    @property
    def outputs(self) -> Sequence[str]:
        return ["prompt_id", "probability", "draw"]

    def transform(self, *tables: pa.Table) -> tuple[pa.Table, dict[str, int]]:
        table, *topics = tables
        scored = table.filter(table["uniform"].is_valid())
        size = round(self.fraction * len(table))
        if len(scored) == 0 or size == 0:
            raise DataError(f"nothing to select: {len(scored)} of {len(table)} prompts are scored, the fraction is {self.fraction}")
        weights = scored["weight"].to_numpy()
        if not weights.any():
            weights = np.ones(len(scored))
        for labelled in topics:
            places = pc.index_in(scored["prompt_id"], value_set=labelled["prompt_id"].combine_chunks())
            weights = balanced(weights, labelled["topic"].take(places).to_pylist(), self.topic_share)
        draws = uniforms(self.seed, scored["prompt_id"].to_pylist())
        chosen = SELECTIONS[self.kind](weights, draws, min(size, len(scored)))
        columns = {
            "prompt_id": scored["prompt_id"].take(pa.array(chosen)),
            "probability": (weights / weights.sum())[chosen],
            "draw": pa.array(np.arange(len(chosen)), pa.int32()),
        }
        return pa.table(columns), {"not_selectable": len(table) - len(scored), "zero_weight": int((weights[chosen] == 0).sum())}


class Subset(TableStep):
    """The prompts that were drawn, as they are, in their order. Inputs: the prompts, then the draws from them.

    Output columns:
        - the columns of a prompt row
    """

    @property
    def inputs(self) -> Sequence[str]:
        return SCHEMAS["prompts"].names

    @property
    def outputs(self) -> Sequence[str]:
        return SCHEMAS["prompts"].names

    def transform(self, *tables: pa.Table) -> tuple[pa.Table, dict[str, int]]:
        prompts, drawn = tables
        kept = prompts.filter(pc.is_in(prompts["prompt_id"], drawn["prompt_id"].combine_chunks())).cast(SCHEMAS["prompts"])
        return kept, {"kept": len(kept), "not_drawn": len(prompts) - len(kept)}
