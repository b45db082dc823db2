"""Log-probabilities of the reference policy, computed once and cached by content.

They depend only on the reference's weights, the token ids, the arithmetic and the weight of long tails: a rerun, or a sweep over losses in
the same run, reads them from `<run>/cache` and loads no reference.
"""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset, concatenate_datasets
from torch.utils.data import DataLoader

from eva_stages.core.durable import sync, write_whole
from eva_stages.core.errors import DataError
from eva_stages.core.fingerprint import file_digest, fingerprint
from eva_stages.models.architecture import attention_code
from eva_stages.solver.job import TrainingJob
from eva_stages.solver.tokens import FIGURES, pair_lengths

REPORT_SECONDS = 1.0
COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")


class ReferenceLogProbs:
    """The file with the reference's log-probabilities of one set of pairs."""

    def __init__(self, cache: Path, **content: Any) -> None:
        """`content`: everything that determines the numbers."""
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
        """The columns of `COLUMNS`, in the order of the pairs; None if they are not cached or cannot be read."""
        try:
            table = pq.read_table(self._path, page_checksum_verification=True)
        except FileNotFoundError:
            return None
        except (OSError, pa.ArrowException) as error:
            print(f"{self._path} cannot be read ({error}); recomputing the reference's log-probabilities", flush=True)
            return None
        return table if len(table) == rows else None

    def write(self, chosen: np.ndarray, rejected: np.ndarray) -> None:
        """Write both columns (float32, shape (pairs,)) atomically."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        pq.write_table(pa.table(dict(zip(COLUMNS, (chosen, rejected), strict=True))), partial, write_page_checksum=True)
        sync(partial)
        partial.replace(self._path)

    def join(self, pairs: Dataset) -> Dataset:
        """The pairs with the columns of the reference's log-probabilities."""
        table = self.read(len(pairs))
        if table is None:
            raise FileNotFoundError(self._path)
        return concatenate_datasets([pairs, Dataset(table)], axis=1)


def uses_own_weights(job: TrainingJob) -> bool:
    """Whether the reference is the policy with its adapter off: where it saves a second copy, or is the only one of these weights."""
    if job.training.adapter is None or job.reference != job.policy or job.first_adapter is not None:
        return False
    return job.uses_four_bits or not job.training.runtime.precompute_reference


class ReferencePass:
    """For TRL's DPO trainer: computes the reference's log-probabilities of all pairs before the first step, unless the file has them."""

    reference_seconds = 0.0
    """Time spent on them."""
    _cache: ReferenceLogProbs
    _progress: Path
    """File that takes how many are computed."""
    accelerator: Any
    data_collator: Any
    model: Any
    ref_model: Any
    compute_ref_log_probs: Any

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        if self._cache.read(len(dataset)) is None:
            began = time.monotonic()
            chosen, rejected = self._reference_logps(dataset, batch_size)
            if self.accelerator.is_main_process:
                self._cache.write(chosen, rejected)
            self.accelerator.wait_for_everyone()
            self.reference_seconds = round(time.monotonic() - began, 3)
        self.ref_model = None
        self.accelerator.free_memory()  # it still references the prepared model
        return self._cache.join(dataset)

    def _reference_logps(self, dataset: Dataset, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Of all pairs in their order, each of shape (pairs,); a batch has pairs of about equal length."""
        order = np.argsort(-pair_lengths(dataset), kind="stable")
        loader = DataLoader(dataset.select(order), batch_size=batch_size, collate_fn=self.data_collator)
        batches, last_report = [], time.monotonic()
        for batch in self.accelerator.prepare(loader):
            batches.append(self._batch_logps(batch))
            if self.accelerator.is_main_process and time.monotonic() - last_report > REPORT_SECONDS:
                last_report = time.monotonic()
                write_whole(self._progress, json.dumps({"pairs": sum(batch_logps.shape[1] for batch_logps in batches), "of": len(dataset)}))
        columns = np.empty((2, len(dataset)), dtype=np.float32)
        columns[:, order] = np.concatenate(batches, axis=1)
        if unusable := int((~np.isfinite(columns).all(axis=0)).sum()):
            raise DataError(
                f"the reference policy gives log-probabilities that are not finite for {unusable} of {len(dataset)} pairs; check its "
                "weights, solver.training.dtype and solver.training.attention"
            )
        return columns[0], columns[1]

    def _batch_logps(self, batch: dict[str, Any]) -> np.ndarray:
        inputs = {name: value for name, value in batch.items() if name not in FIGURES}
        columns = self.compute_ref_log_probs(self.ref_model or self.model, inputs)
        return torch.stack(self.accelerator.gather_for_metrics(columns)).float().cpu().numpy()
