import random

import numpy as np
import pytest
from datasketch import MinHash, MinHashLSH

from eva_stages.creator.sketching import PERMUTATIONS, SHINGLE, SHINGLES, first_of_their_kind, sketches


def datasketch_of(text: str) -> MinHash:
    text_in_lower_case = text.lower()
    output = MinHash(num_perm=PERMUTATIONS, seed=1)
    output.update_batch(
        [text_in_lower_case[start : start + SHINGLE].encode() for start in range(max(1, len(text_in_lower_case) - SHINGLE + 1))]
    )
    return output


def kept_by_index(texts: list[str], threshold: float) -> list[bool]:
    """The rule as datasketch's index applies it: a text is kept if none of the kept ones before it is near."""
    index, known_ids, kept_rows = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS), [], []
    for number, text in enumerate(texts):
        output = datasketch_of(text)
        known_ids.append(output)
        kept_rows.append(not any(known_ids[near].jaccard(output) >= threshold for near in index.query(output)))
        if kept_rows[-1]:
            index.insert(number, output)
    return kept_rows


def variants(count: int, seed: int = 0) -> list[str]:
    """Texts in families: each one of a few sentences with up to six of its words replaced."""
    draw = random.Random(seed)
    words = [f"{'abcdefgh'[n % 8]}w{n}" for n in range(300)]
    families = [draw.choices(words, k=draw.randint(3, 40)) for _ in range(count // 8)]
    texts = []
    for _ in range(count):
        text = list(draw.choice(families))
        for _ in range(draw.randint(0, 6)):
            text[draw.randrange(len(text))] = draw.choice(words)
        texts.append(" ".join(text))
    return texts


def test_sketches_are_datasketch_s() -> None:
    texts = [
        "",
        "a",
        "Abcde",
        "\u00c4pfel und \U0001f600 \u4f60\u597d, STRASSE",
        "x" * 3000,
        " ".join(variants(3 * SHINGLES // 100)),
        *variants(128),
    ]
    assert np.array_equal(sketches(texts), [datasketch_of(text).hashvalues for text in texts])
    assert sketches([]).shape == (0, PERMUTATIONS)


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
def test_the_texts_that_are_kept_are_those_of_datasketch_s_index(threshold: float) -> None:
    texts = variants(1200)
    kept_rows = first_of_their_kind(sketches(texts), threshold)
    assert kept_rows.tolist() == kept_by_index(texts, threshold)
    assert 100 < kept_rows.sum() < 1150


def test_what_is_near_a_dropped_text_alone_is_kept() -> None:
    output = np.zeros((3, PERMUTATIONS), dtype=np.uint32)
    output[1, 110:] = output[2, 110:] = 1
    output[2, :18] = 1
    assert first_of_their_kind(output, 0.8).tolist() == [True, False, True]


def test_different_short_texts_are_not_near_duplicates() -> None:
    assert first_of_their_kind(sketches(["", "a", "b", "ab", "Take abc, reverse it.", "Take abd, sort its letters."]), 0.8).all()
