"""Suggestions for an unknown id: ids with the same beginning, or else with the smallest edit distance."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

LONGEST = 64
FURTHEST = 0.5
"""Largest share of an id's characters that may differ in a suggestion."""


def nearest(wanted_id: str, columns: Sequence[pa.ChunkedArray], count: int = 3) -> list[str]:
    """At most `count` of the ids in some columns, nearest first."""
    ids = pc.unique(pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string()))
    wanted_id = wanted_id.strip().lower()[:LONGEST]
    if not wanted_id or not len(ids):
        return ids[:count].to_pylist()
    same_start = ids.filter(pc.starts_with(ids, wanted_id))
    if len(same_start):
        return same_start[:count].to_pylist()
    distances = edit_distances(wanted_id, ids)
    order = np.argsort(distances, kind="stable")[:count]
    best = order[distances[order] <= FURTHEST * max(len(wanted_id), 1)]
    return ids.take(pa.array(best if len(best) else order)).to_pylist()


def edit_distances(wanted_id: str, ids: pa.StringArray) -> np.ndarray:
    """Levenshtein distance of every id to a word, shape (ids,), all ids in step (Wagner and Fischer 1974)."""
    offsets = np.frombuffer(ids.buffers()[1], np.int32)[ids.offset : ids.offset + len(ids) + 1]
    letters = np.frombuffer(ids.buffers()[2], np.uint8)
    lengths = np.diff(offsets)
    row = [np.full(len(ids), index, dtype=np.int16) for index in range(len(wanted_id) + 1)]
    distances = row[-1].copy()
    for column in range(int(lengths.max())):
        character_here = np.where(column < lengths, letters[np.minimum(offsets[:-1] + column, len(letters) - 1)], 0)
        row_above, row = row, [np.full(len(ids), column + 1, dtype=np.int16)]
        for index, character in enumerate(wanted_id.encode("ascii", "replace"), start=1):
            replacement_cost = row_above[index - 1] + (character_here != character)
            row.append(np.minimum(np.minimum(row_above[index] + 1, row[index - 1] + 1), replacement_cost))
        distances = np.where(lengths == column + 1, row[-1], distances)
    return distances
