"""Coverage: how diverse all prompts of a run are, up to an iteration. One row of figures.

Figures over pairs of prompts are over the same `SAMPLE` prompts at most, drawn uniformly from all different prompts, so that they cost the
same at any size; a smaller set is taken whole. Compare shares of one sample size only: both shares depend on it.

- Vendi share: exp(entropy of the eigenvalues of K / n) / n (Friedman and Dieng 2023), from 1 / n (all prompts equal) to 1 (no two
  alike). K has the cosines of the prompts' embeddings, or else the estimated Jaccard similarities of their character 5-grams.
- Cluster share: share of the prompts with another one at a BLEU of at least `CLUSTER_BLEU`. BLEU here is over sets of word n-grams, n up
  to 4, with brevity penalty, as the mean of both directions.
- Cells: number of different cells, of the archive's kind.
- Nearest distance: mean distance (1 - similarity) of the prompts that are new in this iteration to the nearest of all earlier ones.
"""

from collections.abc import Generator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eva_stages.core.distil import TableStep
from eva_stages.core.fingerprint import uniforms
from eva_stages.core.named_functions import FunctionCode
from eva_stages.core.tables import Rows, first_places, take
from eva_stages.creator.archive import found_cells, labelled_cells
from eva_stages.creator.curation import prompt_text
from eva_stages.creator.diversity import embedding_matrix
from eva_stages.creator.novelty import similarity_to_memory, sketch_agreement
from eva_stages.creator.sketching import sketches

SAMPLE = 1000
CLUSTER_BLEU = 0.5
ORDERS = (1, 2, 3, 4)
TOKEN = r"\w+|[^\w\s]"


def vendi_share(similarities: np.ndarray) -> float:
    """The Vendi score over n, of a positive semidefinite matrix of shape (n, n) with ones on its diagonal."""
    count = len(similarities)
    shares = np.clip(np.linalg.eigvalsh(similarities / count), 0.0, None)
    shares = shares[shares > 0] / shares.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()) / count)


def bleu_matrix(texts: Sequence[str]) -> np.ndarray:
    """BLEU of every text against every other, as the mean of both directions; shape (n, n). A text without an order's n-grams omits it."""
    from sklearn.feature_extraction.text import CountVectorizer

    logarithms, orders = np.zeros((len(texts), len(texts))), np.zeros((len(texts), 1))
    for order in ORDERS:
        vectorizer = CountVectorizer(token_pattern=TOKEN, ngram_range=(order, order), binary=True)
        try:
            grams = vectorizer.fit_transform(texts).astype(np.float32)
        except ValueError:  # no text has an n-gram of this order
            break
        counts = grams.sum(axis=1).A1[:, None]
        with np.errstate(divide="ignore"):
            logarithms += np.where(counts > 0, np.log((grams @ grams.T).toarray() / np.maximum(counts, 1)), 0.0)
        orders += counts > 0
    lengths = np.array([len(CountVectorizer(token_pattern=TOKEN).build_analyzer()(text)) for text in texts], dtype=float)
    penalties = np.minimum(0.0, 1 - lengths[None, :] / np.maximum(lengths[:, None], 1))
    scores = np.where(orders > 0, np.exp(logarithms / np.maximum(orders, 1) + penalties), 0.0)
    return np.asarray((scores + scores.T) / 2)


def cluster_share(scores: np.ndarray) -> float:
    """The share of the texts that have another text at a score of at least `CLUSTER_BLEU`."""
    return float((np.where(np.eye(len(scores), dtype=bool), 0.0, scores) >= CLUSTER_BLEU).any(axis=1).mean())


class Coverage(TableStep):
    """The figures of all prompts up to an iteration. Inputs: the current set, the earlier sets; then, where they exist, the embeddings, the
    topics and the scores of the sets in the same order.

    Attributes:
        sets: number of prompt sets among the inputs.
        cell: how cells are found, as in `creator.curate.archive`; `topic_complexity` by topics and scores; None = no cells.

    Input columns:
        - prompt_id, messages, reference (prompt sets); prompt_id, embedding; prompt_id, topic; prompt_id, complexity
    Output columns:
        - prompts (different ones of all sets), new_prompts (not in an earlier set), sample, vendi_share, cluster_share, cells (null = not
          asked for), nearest_distance (null = no earlier or no new prompts)
    Categories:
        - scorer
    """

    sets: int = 1
    cell: str | FunctionCode | None = None

    reads = {"prompt_id": True, "messages": True, **dict.fromkeys(("reference", "embedding", "topic", "complexity"), False)}
    writes = ["prompts", "new_prompts", "sample", "vendi_share", "cluster_share", "cells", "nearest_distance"]

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        prompt_sets, more_sources = sources[: self.sets], sources[self.sets :]
        embeddings = [rows for rows in more_sources if "embedding" in rows.names]
        ids = pa.concat_arrays([rows["prompt_id"] for rows in prompt_sets])
        distinct = first_places(ids)
        sample = np.sort(distinct[np.argsort(uniforms(0, ids.take(pa.array(distinct))), kind="stable")[:SAMPLE]])
        conversations = [messages for table in take(prompt_sets, sample, ["messages"]) for messages in table["messages"].to_pylist()]
        texts = [prompt_text(messages) for messages in conversations]
        new_count, nearest_distance = _nearest_distance(prompt_sets, embeddings)
        figures = {
            "prompts": len(distinct),
            "new_prompts": new_count,
            "sample": len(sample),
            "vendi_share": vendi_share(_similarities(ids.take(pa.array(sample)), texts, embeddings)) if len(sample) else None,
            "cluster_share": cluster_share(bleu_matrix(texts)) if len(sample) else None,
            "cells": self._cell_count(prompt_sets, more_sources),
            "nearest_distance": nearest_distance,
        }
        kinds = dict.fromkeys(self.writes, pa.float64()) | dict.fromkeys(("prompts", "new_prompts", "sample", "cells"), pa.int64())
        yield pa.table({name: pa.array([figures[name]], kinds[name]) for name in self.writes})
        return {"prompts": len(distinct), "new_prompts": new_count}

    def _cell_count(self, prompt_sets: Sequence[Rows], more_sources: Sequence[Rows]) -> int | None:
        if self.cell is None:
            return None
        if self.cell == "topic_complexity":
            sources = [[rows for rows in more_sources if name in rows.names] for name in ("topic", "complexity")]
            cells = [labelled_cells(rows["prompt_id"], pair) for rows, *pair in zip(prompt_sets, *sources, strict=True)]
        else:
            cells = [found_cells(self.cell, rows) for rows in prompt_sets]
        return len(pc.unique(pa.concat_arrays(cells).drop_null()))


def _similarities(ids: pa.Array, texts: Sequence[str], embeddings: Sequence[Rows]) -> np.ndarray:
    if embeddings:
        known_ids, matrix = embedding_matrix(embeddings)
        vectors = matrix[pc.index_in(ids, value_set=known_ids).to_numpy()].astype(np.float64)
        return vectors @ vectors.T
    all_sketches = sketches(texts)
    return np.stack([sketch_agreement(all_sketches, sketch) for sketch in all_sketches])


def _nearest_distance(prompt_sets: Sequence[Rows], embeddings: Sequence[Rows]) -> tuple[int, float | None]:
    """The number of prompts of the first set that are in no other set, and the mean distance of a sample of them to the others' nearest."""
    current_set, *earlier_sets = prompt_sets
    earlier_ids = pa.concat_arrays([pa.array([], pa.string()), *(rows["prompt_id"] for rows in earlier_sets)])
    places = np.flatnonzero(pc.invert(pc.is_in(current_set["prompt_id"], value_set=earlier_ids)))
    sample = np.sort(places[np.argsort(uniforms(0, current_set["prompt_id"].take(pa.array(places))), kind="stable")[:SAMPLE]])
    if not len(sample) or not earlier_sets:
        return len(places), None
    return len(places), float(1 - similarity_to_memory(current_set, earlier_sets, embeddings, sample).mean())
