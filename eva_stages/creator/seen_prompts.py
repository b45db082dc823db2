"""Which evolved prompts are new, one batch after another: `curation.Curate` for prompts that come while training runs.

Everything seen so far is remembered as ids, sketches and the hashes of their bands, some 800 bytes a prompt. The hashes are sorted but for
the last few thousand, so that a prompt costs no more than a look at the bands, however many there are. A batch that was curated in parts
gives the prompts that `Curate` gives for all of it at once.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasketch import MinHashLSH

from eva_stages.core.errors import DataError
from eva_stages.creator.curation import prompt_text
from eva_stages.creator.sketching import PERMUTATIONS, sketches

FILE = "seen.npz"
UNSORTED_SKETCHES = 4096
"""At most: sketches whose hashes are looked through one by one."""


class SeenPrompts:
    """All prompts of a training so far.

    Args:
        threshold: the estimated Jaccard similarity from which prompts are near duplicates; None = exact duplicates only.
    """

    def __init__(self, threshold: float | None) -> None:
        self._threshold = threshold
        self._ids: dict[str, None] = {}
        self._count = 0
        self._sketches = np.zeros((0, PERMUTATIONS), dtype=np.uint32)
        self._bands = self._rows = 0
        if threshold is not None:
            index = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)
            self._bands, self._rows = int(index.b), int(index.r)
        self._hashes = np.zeros((self._bands, 0), dtype=np.uint64)
        self._order = np.zeros((self._bands, 0), dtype=np.int64)
        """Of each band the order of the first sketches by its hash."""

    def duplicates(self, rows: Sequence[dict[str, Any]]) -> list[str | None]:
        """Of each prompt why it is not new, or None; new prompts have been seen from then on."""
        batch_sketches = None if self._threshold is None else sketches([prompt_text(row["messages"]) for row in rows])
        return [self._duplicate(row["prompt_id"], None if batch_sketches is None else batch_sketches[n]) for n, row in enumerate(rows)]

    def _duplicate(self, prompt_id: str, sketch: np.ndarray | None) -> str | None:
        if prompt_id in self._ids:
            return "duplicate"
        self._ids[prompt_id] = None
        if sketch is None or self._threshold is None:
            return None
        hashes = self._band_hashes(sketch[None])[0]
        near = self._sketches[self._sharing_a_band(hashes)]
        if len(near) and (near == sketch).mean(axis=1).max() >= self._threshold:
            return "near_duplicate"
        self._append(sketch[None], hashes[None])
        return None

    def _sharing_a_band(self, hashes: np.ndarray) -> np.ndarray:
        """Places of sketches with one of these hashes in its band."""
        ordered_count = self._order.shape[1]
        last_hashes = self._hashes[:, ordered_count : self._count]
        places = [ordered_count + np.flatnonzero((last_hashes == hashes[:, None]).any(axis=0))]
        for band_hashes, order, value in zip(self._hashes, self._order, hashes, strict=True):
            ends = [int(np.searchsorted(band_hashes[:ordered_count], value, side, order)) for side in ("left", "right")]
            places.append(order[slice(*ends)])
        return np.concatenate(places)

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Prompts that are there in any case."""
        for name in [row["prompt_id"] for row in rows]:
            self._ids[name] = None
        if rows and self._threshold is not None:
            new_sketches = sketches([prompt_text(row["messages"]) for row in rows])
            self._append(new_sketches, self._band_hashes(new_sketches))

    def save(self, folder: Path) -> None:
        np.savez(folder / FILE, ids=np.array(list(self._ids), dtype="S24"), sketches=self._sketches[: self._count])

    def read(self, folder: Path) -> None:
        """Continue with what another object has saved.

        Raises:
            DataError: if the file cannot be read.
        """
        try:
            with np.load(folder / FILE) as arrays:
                ids, all_sketches = arrays["ids"].astype(str), arrays["sketches"]
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{folder / FILE} cannot be read: {error}") from error
        self._ids, self._count = dict.fromkeys(ids.tolist()), 0
        self._append(all_sketches, self._band_hashes(all_sketches))

    def _band_hashes(self, some_sketches: np.ndarray) -> np.ndarray:
        """A hash of every band of every sketch, shape (prompts, bands); equal bands have equal hashes."""
        bands = some_sketches[:, : self._bands * self._rows].reshape(len(some_sketches), self._bands, self._rows).astype(np.uint64)
        hashes = np.zeros(bands.shape[:2], dtype=np.uint64)
        with np.errstate(over="ignore"):
            for number in range(self._rows):
                hashes = (hashes ^ bands[:, :, number]) * np.uint64(0x9E3779B97F4A7C15)
                hashes ^= hashes >> np.uint64(29)
        return hashes

    def _append(self, new_sketches: np.ndarray, hashes: np.ndarray) -> None:
        end = self._count + len(new_sketches)
        if end > len(self._sketches):
            room = max(1024, 2 * end) - len(self._sketches)
            self._sketches = np.concatenate([self._sketches, np.zeros((room, PERMUTATIONS), dtype=np.uint32)])
            self._hashes = np.concatenate([self._hashes, np.zeros((self._bands, room), dtype=np.uint64)], axis=1)
        self._sketches[self._count : end], self._hashes[:, self._count : end] = new_sketches, hashes.T
        self._count = end
        if end - self._order.shape[1] > UNSORTED_SKETCHES:
            self._order = np.argsort(self._hashes[:, :end], axis=1)
