"""Similarity to the nearest earlier prompt, against brute force."""

import numpy as np
import pyarrow as pa
import pytest
from datasketch import MinHash

from eva_stages.creator import novelty
from eva_stages.creator.novelty import Novelty, nearest_similarity
from eva_stages.creator.sketching import PERMUTATIONS, SHINGLE, sketches
from eva_stages.lettercraft.distributions import DISTRIBUTIONS
from tests.creator.test_diversity import embeddings, prompts, unit


def instructions(count: int) -> list[str]:
    rng = np.random.default_rng(0)
    return [str(DISTRIBUTIONS["deep"](rng)) for _ in range(count)]


def vectors(count: int) -> np.ndarray:
    """Vectors around a few centres, so that some have near neighbours."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(20, 16))[rng.integers(20, size=count)] + 0.3 * rng.normal(size=(count, 16))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def minhash_of(text: str) -> MinHash:
    sketch = MinHash(num_perm=PERMUTATIONS, seed=1, scheme="affine32")
    for start in range(max(1, len(text) - SHINGLE + 1)):
        sketch.update(text.lower()[start : start + SHINGLE].encode())
    return sketch


def test_sketches_find_the_nearest_prompt_as_datasketch_compares_them() -> None:
    texts = instructions(60)
    minhashes = [minhash_of(text) for text in texts]
    expected = [max(minhash.jaccard(old_minhash) for old_minhash in minhashes[20:]) for minhash in minhashes[:20]]
    all_sketches = sketches(texts)
    assert nearest_similarity(all_sketches[:20], all_sketches[20:]) == pytest.approx(expected)


def test_embeddings_find_the_nearest_prompt_and_opposite_ones_have_similarity_0() -> None:
    points = vectors(80)
    expected = np.clip((points[:30] @ points[30:].T).max(axis=1), 0, 1)
    assert nearest_similarity(points[:30], points[30:]) == pytest.approx(expected, abs=1e-6)
    assert nearest_similarity(unit(0, 90), unit(180)).tolist() == pytest.approx([0, 0], abs=1e-6)


@pytest.mark.parametrize("features", [sketches(instructions(1400)), vectors(1400)], ids=["sketches", "embeddings"])
def test_beyond_the_exact_pairs_the_similarity_is_almost_the_exact_one_and_never_above(
    features: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = nearest_similarity(features[:400], features[400:])
    monkeypatch.setattr(novelty, "EXACT_PAIRS", 0)
    approximate = nearest_similarity(features[:400], features[400:])
    assert (approximate <= exact + 1e-6).all() and (exact - approximate).mean() < 0.01
    assert nearest_similarity(features[400:420], features[400:]) == pytest.approx(np.ones(20), abs=1e-6)
    assert np.array_equal(approximate, nearest_similarity(features[:400], features[400:]))


def test_nothing_is_similar_to_an_empty_memory() -> None:
    assert nearest_similarity(sketches(["a"]), np.empty((0, PERMUTATIONS), dtype=np.uint32)).tolist() == [0]


def test_distances_are_to_the_nearest_of_all_earlier_sets_and_a_repeated_prompt_has_none() -> None:
    present = prompts("Name three rivers of Europe.", "Write a poem about rain.", "What is 12 times 7?")
    earlier = prompts("What is 12 times 7?", "Name three rivers."), prompts("Name three rivers in Europe.", "What is 12 times 7?")
    output, counts = Novelty(name="novelty").transform(present, *earlier)
    texts = [
        "Name three rivers of Europe.",
        "Write a poem about rain.",
        "What is 12 times 7?",
        "Name three rivers.",
        "Name three rivers in Europe.",
    ]
    minhashes = [minhash_of(text) for text in texts]
    expected = [1 - max(minhashes[row].jaccard(old_minhash) for old_minhash in minhashes[2:]) for row in range(3)]
    assert output["distance"].to_pylist() == pytest.approx(expected) and expected[2] == 0 and counts == {"repeated": 1}
    assert output["prompt_id"].equals(present["prompt_id"])


def test_distances_by_embeddings_find_them_by_id() -> None:
    present, earlier = prompts("a", "b"), prompts("x", "a")
    own_embeddings = embeddings(present, unit(0, 60)).take([1, 0])
    output, _ = Novelty(name="novelty", has_embeddings=True).transform(present, own_embeddings, embeddings(earlier, unit(90, 1)))
    assert output["distance"].to_pylist() == pytest.approx([0, 1 - np.cos(np.radians(30))], abs=1e-6)
    assert output["distance"][0].as_py() == 0, "a repeated prompt, although its embedding was computed again in another batch"
    assert output.schema == pa.schema([("prompt_id", pa.string()), ("distance", pa.float64())])
