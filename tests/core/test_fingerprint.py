import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from eva_stages.core.fingerprint import canonical, derive_seed, fingerprint, tree_digest, uniforms


def test_runtime_keys_do_not_change_identity() -> None:
    assert fingerprint({"a": 1, "runtime": {"device": "cuda"}, "b": [{"runtime": 1}]}) == fingerprint({"b": [{}], "a": 1})


def test_key_order_does_not_change_identity_and_types_do() -> None:
    assert canonical({"b": 1, "a": (1, 2)}) == canonical({"a": [1, 2], "b": 1})
    assert len({fingerprint(value) for value in (1, 1.5, "1", True, None, [1], {"a": 1})}) == 7


@pytest.mark.parametrize("value", [float("nan"), float("inf"), Path("x"), {1: 2}, {"a": object()}, b"bytes", {1, 2}])
def test_what_cannot_be_encoded_exactly_raises(value: object) -> None:
    with pytest.raises(TypeError, match="cannot fingerprint"):
        fingerprint({"deep": [value]})


def test_uniforms_depend_on_seed_and_id_alone() -> None:
    ids = pa.array([hashlib.sha256(str(number).encode()).hexdigest()[:24] for number in range(20_000)])
    draws = uniforms(derive_seed(1, "x"), ids)
    assert np.array_equal(uniforms(derive_seed(1, "x"), ids[::-1]), draws[::-1])
    assert not np.array_equal(uniforms(derive_seed(2, "x"), ids), draws)
    with pytest.raises(ValueError, match="at least 16 hex digits"):
        uniforms(1, pa.array(["0123456789abcdef", "abc"]))
    assert 0 < draws.min() < draws.max() < 1
    counts = np.histogram(draws, bins=20, range=(0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 45  # chi-squared with 19 degrees of freedom: p > 0.0005


def test_derived_seeds_differ_and_fit_into_63_bits() -> None:
    seeds = {derive_seed(42, stage, iteration) for stage in ("a", "b", "ab") for iteration in range(50)}
    assert len(seeds) == 150 and max(seeds) < 2**63


def test_a_tree_digest_sees_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = tree_digest(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = tree_digest(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, second, tree_digest(tmp_path)}) == 3
