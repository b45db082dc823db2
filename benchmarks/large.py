"""Artifacts of any size for the benchmarks of the data path, written in batches: memory does not grow with the number of prompts.

Texts are words of a made-up vocabulary drawn by Zipf's law, in lengths that are log-normal, as those of real prompts are. Every fifth
prompt is an earlier one of its batch with one word replaced, as evolvers like to write them.
"""

import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from eva_stages.core.distil import run_table_step
from eva_stages.core.rows import SCHEMAS, TOKENS
from eva_stages.core.stage import Use
from eva_stages.core.tables import write_rows

BATCH = 4096
VOCABULARY = 20_000


@cache
def vocabulary() -> np.ndarray:
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlcumwfgypbvk"))
    return np.array(["".join(rng.choice(letters, size=length)) for length in rng.integers(2, 10, VOCABULARY)])


def texts(count: int, median: int, rng: np.random.Generator, near: float = 0.0) -> list[str]:
    """`count` texts of `median` words; a share of `near` are others with one word replaced."""
    words = vocabulary()
    weights = 1 / np.arange(3, VOCABULARY + 3)
    lengths = np.clip(rng.lognormal(np.log(median), 0.5, count).astype(int), 3, 30 * median)
    word_iterator = iter(words[rng.choice(VOCABULARY, size=lengths.sum(), p=weights / weights.sum())].tolist())
    word_lists = [[next(word_iterator) for _ in range(length)] for length in lengths]
    for place in np.flatnonzero(rng.random(count) < near):
        word_lists[place] = list(word_lists[rng.integers(count)])
        word_lists[place][rng.integers(len(word_lists[place]))] = str(rng.choice(words))
    return [" ".join(word_list) for word_list in word_lists]


def prompt_tables(count: int, words: int = 20, seed: int = 0, near: float = 0.2, rejected: float | None = None) -> Iterator[pa.Table]:
    """Prompts, or evolutions of which a share of `rejected` was turned down."""
    for size, rng in _batches(count, seed):
        ids = identities(size, rng)
        contents = pa.array(texts(size, words, rng, near))
        columns = {
            "prompt_id": ids,
            "messages": messages(contents, "user"),
            "source": pa.repeat("large", size),
            "root_id": ids,
            "generation": pa.array(np.zeros(size), pa.int32()),
        }
        schema = SCHEMAS["prompts"]
        if rejected is not None:
            schema = SCHEMAS["evolutions"]
            columns["rejected"] = pa.array(np.where(rng.random(size) < rejected, "refusal", None), pa.string())
        yield pa.table([columns.get(field.name, pa.nulls(size, field.type)) for field in schema], schema=schema)


def reward_tables(count: int, n: int = 6, seed: int = 0) -> Iterator[pa.Table]:
    """Rewards of the prompts of `prompt_tables` with the same seed; of one prompt in a thousand one is missing."""
    for size, rng in _batches(count, seed):
        ids = identities(size, rng)
        rewards = rng.normal(size=(size, n)).round(2)
        rewards[rng.random(size) < 0.001, 0] = np.nan
        lists = pa.ListArray.from_arrays(np.arange(size + 1, dtype=np.int32) * n, pa.array(rewards.ravel(), from_pandas=True))
        failures = pa.ListArray.from_arrays(np.arange(size + 1, dtype=np.int32) * n, pa.nulls(size * n, pa.string()))
        yield pa.table([ids, lists, failures], schema=SCHEMAS["rewards"])


def response_tables(count: int, n: int = 6, words: int = 20, seed: int = 0) -> Iterator[pa.Table]:
    """Responses to the prompts of `prompt_tables` with the same seed. The texts are slices of one text, because nothing reads them."""
    long = " ".join(texts(1, 20_000, np.random.default_rng(1)))
    for size, rng in _batches(count, seed):
        ids = identities(size, rng)
        starts, lengths = rng.integers(len(long) // 2, size=size * n), rng.integers(2 * words, 10 * words, size=size * n)
        answers = pa.array([long[start : start + length] for start, length in zip(starts, lengths, strict=True)])
        offsets = np.arange(size + 1, dtype=np.int32) * n
        columns = {
            "prompt_id": ids,
            "responses": pa.ListArray.from_arrays(offsets, answers),
            "finish_reasons": pa.ListArray.from_arrays(offsets, pa.repeat("stop", size * n)),
            "token_counts": pa.ListArray.from_arrays(offsets, pa.array(lengths // 5, pa.int32())),
            "response_ids": pa.nulls(size, pa.list_(TOKENS)),
            "generator": pa.repeat("large", size),
            "seed": pa.array(np.zeros(size), pa.int64()),
        }
        yield pa.table([columns[name] for name in SCHEMAS["responses"].names], schema=SCHEMAS["responses"])


def identities(size: int, rng: np.random.Generator) -> pa.Array:
    digits = rng.bytes(12 * size).hex()
    return pa.array([digits[start : start + 24] for start in range(0, len(digits), 24)])


def messages(contents: pa.Array, role: str) -> pa.ListArray:
    """Each text as a list of one message."""
    structs = pa.StructArray.from_arrays([pa.repeat(role, len(contents)), contents], names=["role", "content"])
    return pa.ListArray.from_arrays(np.arange(len(contents) + 1, dtype=np.int32), structs)


def _batches(count: int, seed: int) -> Iterator[tuple[int, np.random.Generator]]:
    for start in range(0, count, BATCH):
        yield min(BATCH, count - start), np.random.default_rng((seed, start))


def write(tables: Iterator[pa.Table], schema: str, folder: Path) -> Path:
    write_rows(tables, SCHEMAS[schema], folder)
    return folder


def table_step(use: Use, out_folder: Path, **sources: Path) -> dict[str, float]:
    """Run a table step from files to files as a stage's process does; returns seconds, peak memory and the step's counts."""
    out_folder.parent.mkdir(parents=True, exist_ok=True)
    start, busy, peak_before = time.perf_counter(), time.process_time(), peak()
    counts = run_table_step(sources, list(sources), use, out_folder)
    figures = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - busy}
    return {**figures, "peak_mib": peak(), "libraries_mib": peak_before, **counts}


def peak() -> float:
    """The most memory that this process has used, in MiB. Linux only, because the figure of `resource` includes the parent's."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024
