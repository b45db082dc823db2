"""What of the evolved prompts is fit to train on: no rejects, no duplicate, no near duplicate of anything seen before."""

from collections import Counter
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
from datasketch import MinHash, MinHashLSH

from eva_stages.core.distil import TableStep
from eva_stages.core.rows import SCHEMAS, Message, normalise

SHINGLE = 5
PERMUTATIONS = 128


def prompt_text(messages: Sequence[Message]) -> str:
    """All turns as one text, for comparing prompts."""
    return normalise("\n".join(message["content"] for message in messages))


def min_hash(text: str) -> MinHash:
    """MinHash of the lower-case character 5-grams of a text."""
    lowered = text.lower()
    shingles = {lowered[start : start + SHINGLE] for start in range(max(1, len(lowered) - SHINGLE + 1))}
    sketch = MinHash(num_perm=PERMUTATIONS, seed=1)
    sketch.update_batch([shingle.encode() for shingle in sorted(shingles)])
    return sketch


class NearDuplicates:
    """Remembers texts and tells whether a new one is nearly one of them (MinHash LSH, Jaccard >= threshold, estimated)."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._index = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)
        self._sketches: dict[str, MinHash] = {}

    def add(self, key: str, text: str) -> bool:
        """Remember a text unless it is nearly a known one; returns whether it was new."""
        sketch = min_hash(text)
        if any(self._sketches[near].jaccard(sketch) >= self._threshold for near in self._index.query(sketch)):
            return False
        self._index.insert(key, sketch)
        self._sketches[key] = sketch
        return True


class Curate(TableStep):
    """Keeps the evolved prompts that are new. The first input are the evolutions, the others all earlier prompts.

    Input columns:
        - the columns of a prompt row; rejected (first input only)
    Output columns:
        - the columns of a prompt row
    """

    near_duplicate: float | None = 0.8

    @property
    def inputs(self) -> Sequence[str]:
        return SCHEMAS["evolutions"].names

    @property
    def outputs(self) -> Sequence[str]:
        return SCHEMAS["prompts"].names

    def transform(self, *tables: pa.Table) -> tuple[pa.Table, dict[str, int]]:
        evolutions, *earlier = tables
        counts = Counter({str(reason): 0 for reason in ("duplicate", "near_duplicate")})
        counts.update(reason for reason in evolutions["rejected"].to_pylist() if reason is not None)
        usable = evolutions.filter(pc.is_null(evolutions["rejected"])).drop_columns("rejected")
        known = {identity for table in earlier for identity in table["prompt_id"].to_pylist()}
        near = NearDuplicates(self.near_duplicate) if self.near_duplicate is not None else None
        if near:
            for table in earlier:
                for identity, text in _texts(table):
                    near.add(identity, text)
        keep = []
        for identity, text in _texts(usable):
            fate = "duplicate" if identity in known else "near_duplicate" if near and not near.add(identity, text) else None
            known.add(identity)
            counts.update([fate] if fate else [])
            keep.append(fate is None)
        kept = usable.filter(pa.array(keep, pa.bool_())).cast(SCHEMAS["prompts"])
        return kept, {"evolved": len(evolutions), "kept": len(kept), **counts}


def _texts(table: pa.Table) -> Iterator[tuple[str, str]]:
    for batch in table.select(["prompt_id", "messages"]).to_batches(max_chunksize=1024):
        for row in batch.to_pylist():
            yield row["prompt_id"], prompt_text(row["messages"])
