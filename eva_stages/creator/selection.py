"""Selection of the prompts to evolve: an informative subset, sampled without replacement [paper, Algorithm 1, line 3; table 4]."""

from collections.abc import Generator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eva_stages.core.config.function_fields import SELECTION
from eva_stages.core.distil import TableStep
from eva_stages.core.errors import DataError
from eva_stages.core.fingerprint import uniforms
from eva_stages.core.named_functions import FunctionCode, load_choice
from eva_stages.core.rows import SCHEMAS
from eva_stages.core.tables import Rows
from eva_stages.creator.function_calls import selected_places

STRATA = 10


def weighted_selection(weights: np.ndarray, draws: np.ndarray, size: int) -> np.ndarray:
    """`size` indices without replacement with probabilities proportional to `weights`, in the order drawn.

    Sorting by Exp(1) / w is the same as drawing one by one (Efraimidis and Spirakis 2006). Where fewer than `size` weights are
    positive, the rest is drawn uniformly from those with none.
    """
    with np.errstate(divide="ignore"):
        times = -np.log(draws) / weights
    return np.lexsort((draws, times))[:size]


def greedy_selection(weights: np.ndarray, draws: np.ndarray, size: int) -> np.ndarray:
    """The `size` largest weights; ties at random."""
    return np.lexsort((draws, -weights))[:size]


def stratified_selection(weights: np.ndarray, draws: np.ndarray, size: int) -> np.ndarray:
    """Equally many from each of ten quantiles of the weights, uniformly within each."""
    ranks = np.empty(len(weights), dtype=np.int64)
    ranks[np.lexsort((draws, weights))] = np.arange(len(weights))
    strata = ranks * STRATA // len(weights)
    order = np.lexsort((draws, strata))
    first = np.searchsorted(strata[order], np.arange(STRATA))
    place = np.empty(len(weights), dtype=np.int64)
    place[order] = np.arange(len(weights)) - first[strata[order]]
    return np.lexsort((draws, place))[:size]


def topic_balanced(weights: np.ndarray, topics: pa.Array, share: float) -> np.ndarray:
    """w' = (1 - c) w + c * inverse topic frequency, both of sum 1; c is `share`. Prompts without a topic form one topic."""
    topic = topics.fill_null("").dictionary_encode().indices.to_numpy()
    inverse = 1 / np.bincount(topic)[topic]
    return (1 - share) * weights / weights.sum() + share * inverse / inverse.sum()


def novel_weights(weights: np.ndarray, distances: np.ndarray, factor: float) -> np.ndarray:
    """w' = w (1 + lambda * distance to the nearest prompt of the earlier sets); lambda is `factor`."""
    return weights * (1 + factor * distances)


class Select(TableStep):
    """Draws the informative subset. Inputs: informativeness; optionally topics, and novelty: rare topics and new prompts become likelier.

    Attributes:
        topic_share: `share` of `topic_balanced`.
        novelty_weight: `factor` of `novel_weights`.
    Input columns:
        - prompt_id, weight, uniform (null = not selectable); prompt_id, topic; prompt_id, distance
    Output columns:
        - prompt_id, probability (of a single draw), draw (0 = first)
    Categories:
        - filtering
    """

    kind: str | FunctionCode = "weighted"
    fraction: float = 0.25
    topic_share: float = 0.0
    novelty_weight: float = 0.0
    seed: int = 0

    reads = {**dict.fromkeys(("prompt_id", "weight", "uniform"), True), "topic": False, "distance": False}
    writes = ["prompt_id", "probability", "draw"]

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        info, *more_sources = sources
        is_scored = info["uniform"].is_valid()
        ids, weights = info["prompt_id"].filter(is_scored), info["weight"].filter(is_scored).to_numpy()
        size = round(self.fraction * len(info))
        if len(ids) == 0 or size == 0:
            raise DataError(f"nothing to select: {len(ids)} of {len(info)} prompts are scored, the fraction is {self.fraction}")
        if not weights.any():
            weights = np.ones(len(ids))
        for rows in more_sources:
            places = pc.index_in(ids, value_set=rows["prompt_id"])
            if "distance" in rows.names:
                weights = novel_weights(weights, rows["distance"].take(places).to_numpy(), self.novelty_weight)
            else:
                weights = topic_balanced(weights, rows["topic"].take(places), self.topic_share)
        chosen = selected_places(load_choice(self.kind, SELECTION), weights, uniforms(self.seed, ids), min(size, len(ids)))
        columns = {
            "prompt_id": ids.take(pa.array(chosen)),
            "probability": (weights / weights.sum())[chosen],
            "draw": pa.array(np.arange(len(chosen)), pa.int32()),
        }
        yield pa.table(columns)
        return {"not_selectable": len(info) - len(ids), "zero_weight": int((weights[chosen] == 0).sum())}


class Subset(TableStep):
    """The selected prompts, unchanged and in order. Inputs: the prompts, the selection.

    Input columns:
        - the columns of a prompt row; prompt_id
    Output columns:
        - the columns of a prompt row
    Categories:
        - filtering
    """

    reads = SCHEMAS["prompts"].names
    writes = SCHEMAS["prompts"].names

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        prompts, selected_rows = sources
        kept_places = np.flatnonzero(pc.is_in(prompts["prompt_id"], selected_rows["prompt_id"]))
        for table in prompts.take(kept_places):
            yield table.cast(SCHEMAS["prompts"])
        return {"kept": len(kept_places), "not_drawn": len(prompts) - len(kept_places)}
