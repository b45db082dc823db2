"""Novelty: how similar a prompt is to the nearest prompt of a memory, the earlier prompt sets of the run.

Prompts are compared by sentence embeddings (cosine, negative ones count as 0) where the recipe has `creator.curate.diversity`, else by
MinHash sketches (the estimated Jaccard similarity of their character 5-grams). Up to `EXACT_PAIRS` pairs the nearest prompt is exact.
Beyond that it is approximate, so that no step is quadratic: the similarity is that of some prompt of the memory, so it is never above the
exact one. Sketches are sorted `TREES` times by different permutations, and a prompt is compared with its neighbours in each order (LSH
forest, Bawa et al. 2005); embeddings are compared with those in the `PROBES` nearest of sqrt(n) cells of a k-means clustering.
"""

import tempfile
from collections.abc import Generator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eva_stages.core.distil import TableStep
from eva_stages.core.errors import DataError
from eva_stages.core.tables import Rows, first_places, take
from eva_stages.creator.curation import prompt_text
from eva_stages.creator.diversity import embedding_matrix, nearest_cosine
from eva_stages.creator.sketching import PERMUTATIONS, sketches

EXACT_PAIRS = 1 << 24
TREES, DEPTH, NEIGHBOURS = 32, 8, 4
"""Orders of the sketches, permutations that an order sorts by, and neighbours on each side of a prompt in it."""
PROBES = 8
"""Cells in which the nearest embedding is searched."""
BLOCK = 2048
CENTRE_SAMPLE = 50
"""Embeddings per cell that k-means learns the cells from."""


def nearest_similarity(prompts: np.ndarray, memory: np.ndarray) -> np.ndarray:
    """The similarity of each prompt to the nearest prompt of the memory, in [0, 1]; 0 if the memory is empty.

    Args:
        prompts: sketches, uint32 of shape (n, permutations), or embeddings, float32 of shape (n, d) and unit length.
        memory: the same of the memory, shape (m, permutations or d).

    Returns:
        float64 of shape (n,)
    """
    if not len(memory) or not len(prompts):
        return np.zeros(len(prompts))
    is_exact = len(prompts) * len(memory) <= EXACT_PAIRS
    if prompts.dtype.kind == "u":
        return _sketch_similarity(prompts, memory) if is_exact else _forest_similarity(prompts, memory)
    nearest = nearest_cosine(prompts, memory) if is_exact else _cell_similarity(prompts, memory)
    return np.clip(nearest, 0.0, 1.0).astype(np.float64)


def similarity_to_memory(
    prompts: Rows, memory: Sequence[Rows], embeddings: Sequence[Rows] = (), rows: np.ndarray | None = None
) -> np.ndarray:
    """`nearest_similarity` of the prompts of an artifact to those of other artifacts; shape (prompts,), or (rows,).

    A prompt that is in the memory itself has similarity 1, also where the nearest prompt is approximate.

    Args:
        prompts: artifact with prompt_id and messages.
        memory: artifacts with prompt_id, and with messages where no embeddings are given; may be empty.
        embeddings: artifacts with the embeddings of `prompts`, then of each artifact of the memory; none = compare sketches.
        rows: row numbers of the prompts to compare; None = all.

    Raises:
        DataError: if a prompt has no embedding.
    """
    rows = np.arange(len(prompts)) if rows is None else rows
    if not memory:
        return np.zeros(len(rows))
    memory_ids = pa.concat_arrays([artifact["prompt_id"] for artifact in memory])
    is_known = pc.is_in(prompts["prompt_id"].take(pa.array(rows)), value_set=memory_ids).to_numpy(zero_copy_only=False)
    return np.where(is_known, 1.0, _nearest(prompts, memory, embeddings, rows, memory_ids))


def _nearest(prompts: Rows, memory: Sequence[Rows], embeddings: Sequence[Rows], rows: np.ndarray, memory_ids: pa.Array) -> np.ndarray:
    if embeddings:
        own_embeddings, *memory_embeddings = embeddings
        ids, matrix = embedding_matrix([own_embeddings])
        places = pc.index_in(prompts["prompt_id"].take(pa.array(rows)), value_set=ids)
        if places.null_count:
            raise DataError(f"{places.null_count} of {len(rows)} prompts have no embedding")
        return nearest_similarity(matrix[places.to_numpy()], embedding_matrix(memory_embeddings)[1])
    memory_places = first_places(memory_ids)
    with tempfile.TemporaryFile(dir=prompts.scratch) as file:
        all_sketches = np.memmap(file, dtype=np.uint32, mode="w+", shape=(max(1, len(rows) + len(memory_places)), PERMUTATIONS))
        end = 0
        for sources, places in (([prompts], rows), (memory, memory_places)):
            for table in take(sources, places, ["messages"]):
                texts = [prompt_text(messages) for messages in table["messages"].to_pylist()]
                all_sketches[end : end + len(table)] = sketches(texts)
                end += len(table)
        return nearest_similarity(all_sketches[: len(rows)], all_sketches[len(rows) : end])


def sketch_agreement(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The share of equal hashes, which estimates the Jaccard similarity of two texts; arrays of sketches that broadcast."""
    bits = np.packbits(first == second, axis=-1).view(np.uint64)
    return np.bitwise_count(bits).sum(axis=-1) / PERMUTATIONS


def _sketch_similarity(prompts: np.ndarray, memory: np.ndarray) -> np.ndarray:
    best = np.zeros(len(prompts))
    for start in range(0, len(memory), BLOCK):
        block = memory[start : start + BLOCK]
        for row, sketch in enumerate(prompts):
            best[row] = max(best[row], sketch_agreement(block, sketch).max())
    return best


def _forest_similarity(prompts: np.ndarray, memory: np.ndarray) -> np.ndarray:
    best = np.zeros(len(prompts))
    for tree in range(TREES):
        columns = (tree * (PERMUTATIONS // TREES) + np.arange(DEPTH)) % PERMUTATIONS
        keys = np.concatenate([memory[:, columns], prompts[:, columns]])
        order = np.lexsort(keys[:, ::-1].T)
        is_memory = order < len(memory)
        neighbours = order[is_memory]
        ranks = np.empty(len(prompts), dtype=np.int64)
        ranks[order[~is_memory] - len(memory)] = np.cumsum(is_memory)[~is_memory]
        for start in range(0, len(prompts), BLOCK):
            rows = slice(start, start + BLOCK)
            for offset in range(-NEIGHBOURS, NEIGHBOURS):
                nearby = neighbours[np.clip(ranks[rows] + offset, 0, len(neighbours) - 1)]
                np.maximum(best[rows], sketch_agreement(memory[nearby], prompts[rows]), out=best[rows])
    return best


def _cell_similarity(prompts: np.ndarray, memory: np.ndarray) -> np.ndarray:
    from sklearn.cluster import MiniBatchKMeans

    count = round(np.sqrt(len(memory)))
    sample = memory[np.linspace(0, len(memory) - 1, min(len(memory), CENTRE_SAMPLE * count)).astype(int)]
    centres = MiniBatchKMeans(count, random_state=0, n_init=1).fit(sample).cluster_centers_
    cells = np.concatenate([(block @ centres.T).argmax(axis=1) for block in _blocks(memory)])
    members = np.argsort(cells, kind="stable")
    bounds = np.searchsorted(cells[members], np.arange(count + 1))
    probes = np.concatenate([np.argpartition(-(block @ centres.T), PROBES, axis=1)[:, :PROBES] for block in _blocks(prompts)])
    best = np.full(len(prompts), -np.inf, dtype=np.float32)
    for cell in range(count):
        rows = np.flatnonzero((probes == cell).any(axis=1))
        nearby = memory[members[bounds[cell] : bounds[cell + 1]]]
        best[rows] = np.maximum(best[rows], nearest_cosine(prompts[rows], nearby))
    return best


def _blocks(vectors: np.ndarray) -> list[np.ndarray]:
    return [vectors[start : start + BLOCK] for start in range(0, len(vectors), BLOCK)]


class Novelty(TableStep):
    """How far each prompt of a set is from the nearest prompt of the earlier sets. Inputs: the set, and the earlier sets or embeddings.

    Attributes:
        has_embeddings: whether the inputs after the set are embeddings: of the set, then of each earlier set.

    Input columns:
        - prompt_id; messages (of prompt sets), embedding (of embeddings)
    Output columns:
        - prompt_id, distance (1 - similarity, in [0, 1]; 0 for a prompt of an earlier set)
    Categories:
        - scorer
    """

    has_embeddings: bool = False

    reads = {"prompt_id": True, "messages": False, "embedding": False}
    writes = ["prompt_id", "distance"]

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        prompts, *inputs = sources
        memory, embeddings = (inputs[1:], inputs) if self.has_embeddings else (inputs, [])
        similarity = similarity_to_memory(prompts, memory, embeddings)
        yield pa.table({"prompt_id": prompts["prompt_id"], "distance": 1.0 - similarity})
        return {"repeated": int((similarity >= 1.0).sum())}
