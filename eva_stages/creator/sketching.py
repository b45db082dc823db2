"""MinHash sketches of many texts, and near duplicates among them, on arrays that can be memory-mapped files.

The sketches equal those of `datasketch` (affine32 scheme, seed 1), which creates an object per text and stores every band in Python dicts.
Here one NumPy expression sketches a batch, and the index is built band by band: the bands of all texts are sorted, and only texts that
share a band with another text are compared. A sketch takes 512 bytes in a file, the index 13 bytes per text and band.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from hashlib import sha1

import numpy as np
from datasketch import MinHash, MinHashLSH

SHINGLE = 5
PERMUTATIONS = 128
SHINGLES = 1 << 12
"""How many are permuted together, so that their hashes stay in the processor's cache."""


def sketches(texts: Sequence[str]) -> np.ndarray:
    """MinHash of the lower-case character 5-grams of each text: uint32 of shape (texts, permutations)."""
    multiply, add = _permutations()
    all_sketches = np.full((len(texts), PERMUTATIONS), np.iinfo(np.uint32).max, dtype=np.uint32)
    for start, shingles in _groups(texts):
        owners = np.repeat(np.arange(start, start + len(shingles)), [len(shingle_set) for shingle_set in shingles])
        digests = b"".join([sha1(shingle).digest()[:4] for shingle_set in shingles for shingle in shingle_set])
        hashes = _murmur_finalised(np.frombuffer(digests, dtype="<u4").astype(np.uint32))
        for place in range(0, len(hashes), SHINGLES):
            group_owners = owners[place : place + SHINGLES]
            first = np.flatnonzero(np.diff(group_owners, prepend=-1))
            minima = np.minimum.reduceat(multiply * hashes[place : place + SHINGLES] + add, first, axis=1).T
            all_sketches[group_owners[first]] = np.minimum(all_sketches[group_owners[first]], minima)
    return all_sketches


def _groups(texts: Sequence[str]) -> Iterator[tuple[int, list[set[bytes]]]]:
    """The shingles of consecutive texts, some `SHINGLES` at a time, with the number of the first text."""
    start, group, total = 0, list[set[bytes]](), 0
    for number, text in enumerate(texts):
        shingle_set = _shingles(text.lower())
        group.append(shingle_set)
        total += len(shingle_set)
        if total >= SHINGLES or number == len(texts) - 1:
            yield start, group
            start, group, total = number + 1, [], 0


@cache
def _permutations() -> np.ndarray:
    return MinHash(num_perm=PERMUTATIONS, seed=1, scheme="affine32").permutations[:, :, None]


def _shingles(text: str) -> set[bytes]:
    starts = range(max(1, len(text) - SHINGLE + 1))
    if text.isascii():
        plain = text.encode()
        return {plain[start : start + SHINGLE] for start in starts}
    return {text[start : start + SHINGLE].encode() for start in starts}


def _murmur_finalised(hashes: np.ndarray) -> np.ndarray:
    """MurmurHash3's finaliser of 32 bits, which datasketch puts before its permutations."""
    hashes ^= hashes >> np.uint32(16)
    hashes *= np.uint32(0x85EBCA6B)
    hashes ^= hashes >> np.uint32(13)
    hashes *= np.uint32(0xC2B2AE35)
    return hashes ^ (hashes >> np.uint32(16))


def first_of_their_kind(all_sketches: np.ndarray, threshold: float) -> np.ndarray:
    """Whether each text is kept: it is not a near duplicate of a kept text before it.

    Two texts are near duplicates if their sketches agree in a band (LSH with datasketch's bands for the threshold) and the share of equal
    hashes, which estimates their Jaccard similarity, is at least `threshold`.

    Args:
        all_sketches: sketches, shape (n, permutations), in the order of precedence.

    Returns:
        bool of shape (n,)
    """
    index = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)
    bands = [_Band(all_sketches[:, start : start + index.r]) for start in range(0, index.b * index.r, index.r)]
    is_kept = np.ones(len(all_sketches), dtype=bool)
    for number in np.flatnonzero(np.any([band.is_shared for band in bands], axis=0)):
        is_kept[number] = not any(
            np.any(np.count_nonzero(all_sketches[near] == all_sketches[number], axis=1) / PERMUTATIONS >= threshold)
            for band in bands
            if len(near := band.kept_neighbours(number))
        )
        if is_kept[number]:
            for band in bands:
                band.keep(number)
    return is_kept


class _Band:
    """The texts by their values in one band. The kept texts come first in their bucket's slice of `members`."""

    def __init__(self, values: np.ndarray) -> None:
        rows = np.ascontiguousarray(values).view(f"V{values.itemsize * values.shape[1]}")[:, 0]
        _, bucket, sizes = np.unique(rows, return_inverse=True, return_counts=True)
        self.is_shared = sizes[bucket] > 1
        self._start = (np.cumsum(sizes) - sizes)[bucket].astype(np.int32)
        self._members = np.empty(len(rows), dtype=np.int32)
        self._count = np.zeros(len(rows), dtype=np.int32)

    def kept_neighbours(self, number: np.intp) -> np.ndarray:
        start = self._start[number]
        return self._members[start : start + self._count[start]]

    def keep(self, number: np.intp) -> None:
        start = self._start[number]
        self._members[start + self._count[start]] = number
        self._count[start] += 1
