"""Figures of coverage against their definitions, computed in plain Python."""

import math
import re

import numpy as np
import pyarrow as pa
import pytest

from eva_stages.creator import coverage
from eva_stages.creator.coverage import Coverage, bleu_matrix, cluster_share, vendi_share
from tests.creator.test_diversity import embeddings, prompts, unit
from tests.creator.test_novelty import minhash_of

TEXTS = [
    "Name three rivers of Europe.",
    "name three rivers of Europe, please.",
    "Name three rivers of Europe and their lengths, from the longest to the shortest.",
    "Write a poem about rain.",
    "Rain?",
]


def bleu(candidate: str, reference: str) -> float:
    words, reference_words = (re.findall(r"\w+|[^\w\s]", text.lower()) for text in (candidate, reference))
    logarithms = []
    for order in (1, 2, 3, 4):
        grams, reference_grams = ({tuple(row[i : i + order]) for i in range(len(row) - order + 1)} for row in (words, reference_words))
        if grams:
            share = len(grams & reference_grams) / len(grams)
            logarithms.append(math.log(share) if share else -math.inf)
    return math.exp(sum(logarithms) / len(logarithms) + min(0.0, 1 - len(reference_words) / len(words)))


def test_bleu_and_the_share_in_clusters_are_those_of_their_definition() -> None:
    expected = [[(bleu(a, b) + bleu(b, a)) / 2 for b in TEXTS] for a in TEXTS]
    scores = bleu_matrix(TEXTS)
    assert scores == pytest.approx(np.array(expected))
    in_clusters = [any(row[j] >= 0.5 for j in range(5) if j != i) for i, row in enumerate(expected)]
    assert cluster_share(scores) == sum(in_clusters) / 5 == 0.4
    assert bleu_matrix(["!", "Rain"]).tolist() == [[1, 0], [0, 1]]


def test_the_vendi_share_counts_different_prompts() -> None:
    assert vendi_share(np.eye(8)) == pytest.approx(1)
    assert vendi_share(np.ones((8, 8))) == pytest.approx(1 / 8)
    pairs = np.kron(np.eye(4), np.ones((2, 2)))
    assert vendi_share(pairs) == pytest.approx(4 / 8)


def test_the_figures_are_of_all_sets_and_the_distance_of_the_new_prompts() -> None:
    present, earlier, first = prompts(*TEXTS[2:5]), prompts(*TEXTS[1:3]), prompts(TEXTS[0])
    table, _ = Coverage(name="coverage", sets=3, cell="lettercraft").transform(present, earlier, first)
    (row,) = table.to_pylist()
    minhashes = [minhash_of(text) for text in TEXTS]
    nearest = [max(minhash.jaccard(old_minhash) for old_minhash in minhashes[:3]) for minhash in minhashes[3:]]
    kernel = np.array([[a.jaccard(b) for b in minhashes] for a in minhashes])
    assert row["nearest_distance"] == pytest.approx(1 - sum(nearest) / 2)
    assert row["vendi_share"] == pytest.approx(vendi_share(kernel)) and row["cluster_share"] == 0.4
    assert (row["prompts"], row["new_prompts"], row["sample"], row["cells"]) == (5, 2, 5, 1)


def test_a_sample_of_one_size_stands_for_many_prompts_and_embeddings_and_labels_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    table = prompts(*map(str, range(40)))
    monkeypatch.setattr(coverage, "SAMPLE", 16)
    ids = table["prompt_id"]
    topics = pa.table({"prompt_id": ids, "topic": ["code", "prose"] * 20})
    scores = pa.table({"prompt_id": ids, "complexity": [1.2] * 39 + [None]})
    step = Coverage(name="coverage", cell="topic_complexity")
    (row,) = step.transform(table, embeddings(table, unit(*([0, 90] * 20))), scores, topics)[0].to_pylist()
    assert row["sample"] == 16 and row["prompts"] == row["new_prompts"] == 40 and row["cells"] == 2
    assert row["vendi_share"] == pytest.approx(2 / 16, rel=0.1) and row["nearest_distance"] is None
    shuffled_table = table.take(pa.array(range(39, -1, -1)))
    (same_row,) = step.transform(shuffled_table, embeddings(table, unit(*([0, 90] * 20))), topics, scores)[0].to_pylist()
    assert same_row == pytest.approx(row)
