import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from eva_stages.core.errors import DataError
from eva_stages.core.tables import (
    BATCH,
    BUCKET,
    Rows,
    aligned_batches,
    check_same_order,
    first_places,
    pick_rows,
    rechunk,
    take,
    write_made,
    write_rows,
)

SCHEMA = pa.schema([("prompt_id", pa.string()), ("texts", pa.list_(pa.string()))])


def table(start: int, stop: int) -> pa.Table:
    rows = [{"prompt_id": f"{n:024x}", "texts": [f"text {n}"] * (n % 3)} for n in range(start, stop)]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def written_rows(folder: Path, rows: pa.Table) -> Rows:
    write_rows([rows], rows.schema, folder)
    return Rows(folder, folder)


@pytest.mark.parametrize("size", [0, 1, BATCH, 2 * BUCKET + 7])
def test_rows_by_number_come_in_the_order_asked_for_whatever_it_is(tmp_path: Path, size: int) -> None:
    whole = table(0, 2 * BUCKET)
    source = written_rows(tmp_path, whole)
    rng = np.random.default_rng(size)
    for places in (rng.integers(len(whole), size=size), np.sort(rng.choice(len(whole), size=min(size, len(whole)), replace=False))):
        assert pa.concat_tables(source.take(places)).equals(whole.take(pa.array(places)))
        assert pa.concat_tables(source.take(places, ["texts"])).column_names == ["texts"]
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]


def test_several_artifacts_count_as_one_after_the_other(tmp_path: Path) -> None:
    sources = [
        written_rows(tmp_path / "a", table(0, 10)),
        written_rows(tmp_path / "b", table(0, 0)),
        written_rows(tmp_path / "c", table(10, 5000)),
    ]
    places = np.array([4999, 3, 10, 9, 3])
    assert pa.concat_tables(take(sources, places))["prompt_id"].to_pylist() == [f"{n:024x}" for n in places]


def test_a_stream_is_gone_through_no_further_than_needed(tmp_path: Path) -> None:
    def tables() -> Iterator[pa.Table]:
        yield table(0, 10)
        yield table(10, 20)
        raise AssertionError("nobody needs this")

    assert sum(map(len, pick_rows(tables(), np.array([3, 15]), tmp_path))) == 2


@pytest.mark.parametrize("cuts", [[0, 0], [0, 5, 5, 6, 30], [0, 30], [0, 10, 20]])
def test_rechunking_changes_the_cuts_and_nothing_else(cuts: list[int]) -> None:
    chunks = list(rechunk([table(start, stop) for start, stop in itertools.pairwise(cuts)], 10))
    assert pa.concat_tables(chunks).equals(table(0, cuts[-1]))
    assert [len(chunk) for chunk in chunks] == ([10] * (cuts[-1] // 10) or [0])


def test_artifacts_side_by_side_hold_the_same_rows(tmp_path: Path) -> None:
    sources = [written_rows(tmp_path / "a", table(0, 5000)), written_rows(tmp_path / "b", table(0, 5000))]
    check_same_order(sources, "these")
    batches = list(aligned_batches(sources, (["prompt_id"], ["prompt_id", "texts"])))
    assert len(batches) == -(-5000 // BATCH) and all(a["prompt_id"].equals(b["prompt_id"]) for a, b in batches)
    with pytest.raises(DataError, match="these do not have the same prompts"):
        check_same_order([sources[0], written_rows(tmp_path / "c", table(1, 5001))], "these")


def test_a_step_s_tables_are_written_as_one_and_its_counts_come_back(tmp_path: Path) -> None:
    def make_tables():  # type: ignore[no-untyped-def]
        yield table(0, 3)
        yield table(3, 700)
        return {"rows": 700}

    assert write_made(make_tables(), tmp_path / "pieces") == {"rows": 700}
    written_rows(tmp_path / "whole", table(0, 700))
    assert (tmp_path / "pieces/rows.parquet").read_bytes() == (tmp_path / "whole/rows.parquet").read_bytes()


def test_the_first_place_of_each_id_counts() -> None:
    assert first_places(pa.array(["b", "a", "b", "c", "a"])).tolist() == [0, 1, 3]
