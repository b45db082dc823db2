import gzip
import json
from pathlib import Path

import pytest

from eva_stages.core.errors import ConfigError
from eva_stages.evaluation.judgment_files import kind_of, parse_records, read_records, text_field
from tests.evaluation.official import judgment_row, rating_row, write_lines

SINGLE = ("FastChat single-answer judgments",)


def faults(path: Path, kinds: tuple[str, ...] = SINGLE) -> list[str]:
    with pytest.raises(ConfigError) as error:
        read_records([path], kinds, "mt-bench")
    return error.value.faults


def test_lists_and_lines_plain_and_gzipped_give_the_same_rows(tmp_path: Path) -> None:
    rows = [rating_row("m", 81, 1, 8), rating_row("m", 82, 1, 7)]
    list_file = tmp_path / "list.json"
    list_file.write_text("\ufeff" + json.dumps(rows, indent=2))
    gzip_file = tmp_path / "named.anything"
    gzip_file.write_bytes(gzip.compress(("\n" + "\n\n".join(map(json.dumps, rows))).encode()))
    records = read_records([list_file, gzip_file, write_lines(tmp_path / "lines.jsonl", rows)], SINGLE, "mt-bench")
    assert [record.row for record in records] == rows * 3
    assert [record.place for record in records] == ["entry 1", "entry 2", "line 2", "line 4", "line 1", "line 2"]


def test_a_line_separator_inside_a_text_does_not_end_the_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(rating_row("m", 81, 1, 8) | {"judgment": "one\u2028two\x85three"}, ensure_ascii=False) + "\n")
    assert len(read_records([path], SINGLE, "mt-bench")) == 1


def test_damaged_files_are_named_with_the_place_of_the_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(rating_row("m", 81, 1, 8)) + '\n{"question_id": 8')
    assert faults(path)[0].startswith(f"{path}, line 2: ") and faults(path)[0].endswith("one object per line, or one list of objects")
    path.write_text("[{}, 3")
    assert faults(path)[0].startswith(f"{path}, the list: ")
    path.write_text("[3]")
    assert faults(path)[0].startswith(f"{path}, entry 1: 3 is not an object")
    path.write_text("\n \n")
    assert faults(path) == [f"{path} is empty; expected for mt-bench: FastChat single-answer judgments"]
    path.write_bytes(b"\xff\xfe\x00")
    assert "'utf-8' codec can't decode" in faults(path)[0]
    path.write_bytes(gzip.compress(b"{}" * 1000)[:-20])
    assert "cannot be read" in faults(path)[0]
    assert faults(tmp_path / "no.jsonl") == [f"{tmp_path / 'no.jsonl'} does not exist"]
    assert "cannot be read: " in faults(tmp_path)[0]


def test_a_file_of_another_kind_is_an_error_that_names_the_kind(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [rating_row("m", 81, 1, 8), judgment_row("m", "q", "A>B", "A>B")])
    expected = "expected for mt-bench: FastChat single-answer judgments"
    assert faults(path) == [f"{path}, line 2: looks like Arena-Hard raw judgments; {expected}"]
    path = write_lines(tmp_path / "b.jsonl", [{"some": 1, "thing": 2}])
    assert faults(path) == [f"{path}, line 1: has the fields some, thing; {expected}"]
    pairs = {"question_id": 81, "model_1": "a", "model_2": "b", "g1_winner": "tie", "g2_winner": "tie", "turn": 1}
    assert kind_of(pairs) == "FastChat pairwise judgments"


def test_a_file_given_twice_would_count_twice(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [rating_row("m", 81, 1, 8)])
    with pytest.raises(ConfigError, match="is given twice"):
        read_records([path, tmp_path / "." / "a.jsonl"], SINGLE, "mt-bench")


def test_the_first_errors_of_every_file_are_reported(tmp_path: Path) -> None:
    paths = [write_lines(tmp_path / f"{name}.jsonl", [rating_row("", number, 1, 1) for number in range(7)]) for name in "ab"]
    with pytest.raises(ConfigError) as error:
        parse_records(read_records(paths, SINGLE, "mt-bench"), lambda record: text_field(record.row, "model"))
    assert len(error.value.faults) == 12 and error.value.faults[5] == f"{paths[0]}: and 2 more rows with errors"
    assert error.value.faults[0] == f'{paths[0]}, line 1: model is ""; expected a name or an id'
