"""Log-probabilities of the reference policy, taken once and kept by content.

They depend on the reference's weights, the token ids, the arithmetic and the weight of long tails, and on nothing else: a rerun, or
a sweep over losses in the same run, reads them from `<run>/cache` and loads no reference at all.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, concatenate_datasets

from eva_stages.core.durable import sync
from eva_stages.core.fingerprint import file_digest, fingerprint
from eva_stages.models.architecture import attention_code
from eva_stages.solver.job import TrainingJob

COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")


class ReferenceLogProbs:
    """The file with the reference's log-probabilities of one set of pairs."""

    def __init__(self, cache: Path, **content: Any) -> None:
        """`content`: everything that the numbers depend on."""
        self._path = cache / "reference-logps" / f"{fingerprint(content)}.parquet"

    @classmethod
    def of(cls, job: TrainingJob, tokens: Path) -> "ReferenceLogProbs":
        """Those of a training job over a file of token ids."""
        return cls(
            job.cache,
            reference=job.reference_digest,
            tokens=file_digest(tokens),
            dtype=job.training.dtype,
            attention=attention_code(job.reference, job.training.attention),
            ld_alpha=getattr(job.loss, "ld_alpha", None),
            four_bits=job.uses_four_bits and job.reference == job.policy,
        )

    def read(self, rows: int) -> pa.Table | None:
        """The columns of `COLUMNS`, in the order of the pairs; None if they have not been taken or cannot be read."""
        try:
            table = pq.read_table(self._path, page_checksum_verification=True)
        except FileNotFoundError:
            return None
        except (OSError, pa.ArrowException) as error:
            print(f"{self._path} cannot be read ({error}); the reference's log-probabilities are taken anew", flush=True)
            return None
        return table if len(table) == rows else None

    def write(self, chosen: np.ndarray, rejected: np.ndarray) -> None:
        """Keep both columns (float32, shape (pairs,)), whole or not at all."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        pq.write_table(pa.table(dict(zip(COLUMNS, (chosen, rejected), strict=True))), partial, write_page_checksum=True)
        sync(partial)
        partial.replace(self._path)

    def join(self, pairs: Dataset) -> Dataset:
        """The pairs with the reference's log-probabilities beside them."""
        table = self.read(len(pairs))
        if table is None:
            raise FileNotFoundError(self._path)
        return concatenate_datasets([pairs, Dataset(table)], axis=1)
