import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from eva_stages.core.errors import DataError, StageError
from eva_stages.core.parts import ROW, STATISTICS, add_statistics, merge_parts, part_facts, read_parts, settle_parts, write_part
from eva_stages.core.tables import joined_batches, read_table, reward_matrix, write_rows

SCHEMA = pa.schema([("prompt_id", pa.string()), ("text", pa.string())])


def rows(start: int, stop: int) -> list[dict]:
    return [{"prompt_id": f"{n:024x}", "text": f"text {n}", ROW: n, STATISTICS: {"tokens": n}} for n in range(start, stop)]


@pytest.mark.parametrize("cuts", [[0, 10_000], [0, 7, 4000, 9_999, 10_000], [0, 5_000, 10_000]])
def test_however_rows_were_split_into_parts_the_artifact_has_the_same_bytes(tmp_path: Path, cuts: list[int]) -> None:
    whole = tmp_path / "whole"
    write_rows([pa.Table.from_pylist(rows(0, 10_000), schema=SCHEMA)], SCHEMA, whole)
    parts = tmp_path / "parts"
    parts.mkdir()
    for start, stop in reversed(list(itertools.pairwise(cuts))):
        write_part(parts, SCHEMA, rows(start, stop))
    assert merge_parts(parts, SCHEMA, tmp_path / "merged") == 10_000
    assert (tmp_path / "merged/rows.parquet").read_bytes() == (whole / "rows.parquet").read_bytes()


def test_parts_with_gaps_filled_later_come_out_in_order(tmp_path: Path) -> None:
    write_part(tmp_path, SCHEMA, rows(2, 4))
    write_part(tmp_path, SCHEMA, rows(0, 2) + rows(4, 6))
    merge_parts(tmp_path, SCHEMA, tmp_path / "out")
    assert read_table(tmp_path / "out")["text"].to_pylist() == [f"text {n}" for n in range(6)]


def test_statistics_of_parts_add_up_and_stand_in_the_footer(tmp_path: Path) -> None:
    write_part(tmp_path, SCHEMA, rows(0, 4))
    write_part(tmp_path, SCHEMA, rows(4, 6))
    numbers, statistics = read_parts(tmp_path)
    assert numbers.tolist() == [0, 1, 2, 3, 4, 5] and statistics == {"tokens": 15}
    assert part_facts(tmp_path / "000000004.parquet") == (2, {"tokens": 9})


@pytest.mark.parametrize("how", ["truncated", "emptied", "a flipped byte"])
def test_a_damaged_part_is_removed_and_its_rows_are_missing_again(tmp_path: Path, how: str) -> None:
    write_part(tmp_path, SCHEMA, rows(0, 400))
    write_part(tmp_path, SCHEMA, rows(400, 402))
    (tmp_path / "000000402.partial").write_bytes(b"half")
    path = tmp_path / "000000000.parquet"
    content = bytearray(path.read_bytes())
    text = content.index(b"PAR1") + 1000  # among the ids, where nothing but a checksum tells
    content[text] ^= 1
    path.write_bytes({"truncated": content[:-20], "emptied": b"", "a flipped byte": content}[how])
    settle_parts(tmp_path)
    assert read_parts(tmp_path)[0].tolist() == [400, 401]
    assert [path.name for path in tmp_path.iterdir()] == ["000000400.parquet"]


def test_a_write_that_fails_says_so_and_leaves_no_part(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    (tmp_path / "000000000.partial").symlink_to(full)
    with pytest.raises(StageError, match=r"cannot write to .* MiB free"):
        write_part(tmp_path, SCHEMA, rows(0, 4))
    assert not list(tmp_path.glob("*.parquet"))


def test_adding_statistics_twice_adds() -> None:
    row: dict = {}
    add_statistics(row, tokens=2, failures=0)
    add_statistics(row, tokens=3)
    assert row[STATISTICS]["tokens"] == 5


@pytest.mark.parametrize("shuffled_rows", [False, True])
def test_artifacts_are_joined_on_prompt_id_whatever_their_order(tmp_path: Path, shuffled_rows: bool) -> None:
    order = np.random.default_rng(0).permutation(3000) if shuffled_rows else np.arange(3000)
    table = pa.Table.from_pylist(rows(0, 3000), schema=SCHEMA)
    write_rows([table], SCHEMA, tmp_path / "a")
    write_rows([table.take(pa.array(order))], SCHEMA, tmp_path / "b")
    skip = np.arange(10, 2000)
    batches = list(joined_batches([tmp_path / "a", tmp_path / "b"], ["", "b_"], skip, 64, tmp_path))
    numbers = np.concatenate([index for index, _ in batches])
    assert numbers.tolist() == [*range(10), *range(2000, 3000)]
    assert all(
        row["b_text"] == row["text"] == f"text {n}" for index, joined_rows in batches for n, row in zip(index, joined_rows, strict=True)
    )
    assert {len(index) for index, _ in batches[:-1]} == {64}


def test_a_join_with_a_missing_id_names_it(tmp_path: Path) -> None:
    write_rows([pa.Table.from_pylist(rows(0, 4), schema=SCHEMA)], SCHEMA, tmp_path / "a")
    write_rows([pa.Table.from_pylist(rows(0, 3), schema=SCHEMA)], SCHEMA, tmp_path / "b")
    with pytest.raises(DataError, match=f"no row for prompt {3:024x}"):
        list(joined_batches([tmp_path / "a", tmp_path / "b"], ["", ""], np.array([]), 2, tmp_path))


def test_a_reward_matrix_has_nan_for_null_and_refuses_ragged_rows() -> None:
    matrix = reward_matrix(pa.chunked_array([pa.array([[1.0, None], [2.0, 3.0]])]))
    assert np.isnan(matrix[0, 1]) and matrix[1].tolist() == [2.0, 3.0]
    with pytest.raises(ValueError, match="different numbers"):
        reward_matrix(pa.chunked_array([pa.array([[1.0], [2.0, 3.0]])]))
