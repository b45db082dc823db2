"""Identity of configurations and of bytes.

A fingerprint identifies the *definition* of a stage, a digest the *content* of files. Keys named `runtime` (devices, batch sizes, paths,
concurrency, credentials) are not part of the identity and are dropped. The encoder raises on any value without an exact encoding, because
`str()` would let two different configurations share a fingerprint.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eva_stages.core.errors import DataError

Stamps = dict[str, tuple[int, int, int]]
"""Size, modification time (ns) and inode of files, by name."""


def canonical(value: Any) -> str:
    """Encode JSON-like data as canonical JSON: sorted keys, no spaces, no `runtime` keys.

    Raises:
        TypeError: for anything that is not a dict with string keys, list, tuple, str, int, finite float, bool or None.
    """
    return json.dumps(_plain(value, "$"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _plain(value: Any, place: str) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"cannot fingerprint {value} at {place}: only finite numbers have an exact encoding")
        return value
    if isinstance(value, Mapping):
        if bad := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"cannot fingerprint the key {bad[0]!r} at {place}: keys must be strings")
        return {key: _plain(item, f"{place}.{key}") for key, item in value.items() if key != "runtime"}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_plain(item, f"{place}[{index}]") for index, item in enumerate(value)]
    raise TypeError(f"cannot fingerprint {type(value).__name__} at {place}: use JSON values")


def fingerprint(value: Any) -> str:
    """sha256 of the canonical JSON of `value`, in hex."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def tree_digest(folder: Path) -> str:
    """sha256 over the relative names and contents of every file below `folder` except Python's caches, in hex."""
    files = _files_below(folder)
    if not files:
        raise DataError(f"{folder} contains no files")
    return digest_of_files({path.relative_to(folder).as_posix(): file_digest(path) for path in files})


def digest_of_files(digests: Mapping[str, str]) -> str:
    """The `tree_digest` of a folder whose files have these digests, by relative name."""
    names = sorted(digests, key=PurePosixPath)
    return hashlib.sha256("\n".join(f"{name}\0{digests[name]}" for name in names).encode()).hexdigest()


def _files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.relative_to(folder).parts)


def file_stamps(path: Path) -> Stamps:
    """The stamps of a file, or of every file below a folder; empty if it does not exist. Equal stamps mean that nothing was written."""
    files = _files_below(path) if path.is_dir() else [path] if path.is_file() else []
    stamps = {(file.relative_to(path).as_posix() if file != path else file.name): file.stat() for file in files}
    return {name: (stamp.st_size, stamp.st_mtime_ns, stamp.st_ino) for name, stamp in stamps.items()}


def derive_seed(*parts: str | int) -> int:
    """A 63-bit seed that depends on every part, so that no two stages or rows share a random stream."""
    return int.from_bytes(hashlib.sha256(canonical(list(parts)).encode()).digest()[:8]) >> 1


def uniforms(seed: int, prompt_ids: pa.Array) -> np.ndarray:
    """One number in (0, 1) per prompt id, a function of (seed, id) alone: order, batches and resumption do not matter.

    Args:
        seed: from `derive_seed`.
        prompt_ids: hex ids of at least 16 digits, shape (n,).

    Returns:
        float64 of shape (n,); the bits of SplitMix64 over id xor seed.

    Raises:
        ValueError: if an id is invalid.
    """
    starts = pa.ListArray.from_arrays([0, len(prompt_ids)], pc.utf8_slice_codeunits(prompt_ids, 0, 16))
    digits = pc.binary_join(starts, "")[0].as_py() or ""
    if len(digits) != 16 * len(prompt_ids):
        raise ValueError("prompt ids have at least 16 hex digits")
    state = np.frombuffer(bytes.fromhex(digits), dtype=">u8").astype(np.uint64)
    state ^= np.uint64(seed)
    with np.errstate(over="ignore"):
        state += np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return ((state >> np.uint64(12)).astype(np.float64) + 0.5) / float(1 << 52)
