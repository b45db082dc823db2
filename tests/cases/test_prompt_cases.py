"""Prompt files of every format in use (CASES.md, K9)."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eva_stages.checking.resolution import resolve
from eva_stages.core.errors import ConfigError, DataError
from eva_stages.core.recipe_files import load_recipe
from eva_stages.core.run_folder import Run
from eva_stages.core.tables import read_table
from eva_stages.creator.conversations import reference_text
from eva_stages.creator.prompt_files import prompt_batches
from eva_stages.creator.prompt_loading import LeftOutRows, count_usable, load_file
from eva_stages.planning.sizes import prompt_count
from tests.building import build_rounds, check

USER = {"role": "user", "content": "hello"}
ASSISTANT = {"role": "assistant", "content": "hi"}
SYSTEM = [{"role": "system", "content": "be kind"}]
ANSWER = {"role": "assistant", "content": "two"}
SHAREGPT = [{"from": "system", "value": "be kind"}, {"from": "human", "value": "one"}, {"from": "gpt", "value": "two"}]
DEEP: Any = "x"
for _ in range(100):
    DEEP = [DEEP]


def load(path: Path, tmp_path: Path, column: str | None = None, **settings: Any) -> tuple[list[list[dict[str, str]]], dict[str, int]]:
    """Load a prompt file; return the messages of its prompts, and the counts."""
    context: Any = SimpleNamespace(work=tmp_path / "work", artifact=tmp_path / "out")
    context.work.mkdir(exist_ok=True)
    result = load_file(context, str(path), column, **{"size": None, "max_characters": 100, "seed": 1, **settings})
    return [row["messages"] for row in read_table(tmp_path / "out").to_pylist()], result["counts"]


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (["one", "two"], "list_of_texts"),
        ({"role": "user", "content": "x"}, "dict"),
        ({"a": 1}, "dict"),
        ([], "null_or_empty"),
        ({}, "null_or_empty"),
        (None, "null_or_empty"),
        ("  ", "null_or_empty"),
        ([None], "null_or_empty"),
        ([{"role": "user", "content": None}], "null_or_empty"),
        ([{"role": "user", "content": ""}], "null_or_empty"),
        (3, "number_or_other_value"),
        (0, "number_or_other_value"),
        (2.5, "number_or_other_value"),
        (True, "truth_value"),
        (False, "truth_value"),
        (float("nan"), "null_or_empty"),
        (float("inf"), "number_or_other_value"),
        ([[USER]], "nested_list"),
        (["one", USER], "mixed_list"),
        ([1, 2], "mixed_list"),
        ([USER, ASSISTANT], "last_turn_not_of_user"),
        ([{"role": "system", "content": "x"}], "last_turn_not_of_user"),
        ([USER, {"role": "tool", "content": "x"}, USER], "tool_turn"),
        ([{"from": "human", "value": "x"}, {"from": "function_call", "value": "y"}], "tool_turn"),
        ([{"role": "narrator", "content": "x"}], "unknown_role"),
        ([{"role": None, "content": "x"}], "unknown_role"),
        ([{"content": "x"}], "unknown_role"),
        ([{"role": ["user"], "content": "x"}], "unknown_role"),
        ([{"role": "user", "content": 3}], "content_that_is_no_text"),
        ([{"role": "user", "content": {"text": "x"}}], "content_that_is_no_text"),
        ([{"role": "user", "content": [{"type": "image", "url": "x"}]}], "part_that_is_no_text"),
        ([{"role": "user", "content": ["x"]}], "part_that_is_no_text"),
        ([{"from": "gpt", "value": "x"}], "last_turn_not_of_user"),
        ("half \ud83d", "half_a_character"),
        ([{"role": "user", "content": "half \udc00"}], "half_a_character"),
        ("[{'role': 'user', 'content': 'x'}]", "messages_as_text"),
    ],
)
def test_values_that_are_not_prompts_are_left_out_and_counted_with_reason_and_row(tmp_path: Path, value: object, reason: str) -> None:
    path = lines(tmp_path / "p.jsonl", {"prompt": "good"}, {"prompt": value}, {"prompt": "fine"})
    prompts, counts = load(path, tmp_path)
    assert prompts == [user("good"), user("fine")] and counts == {"read": 3, reason: 1}
    reasons = LeftOutRows()
    assert count_usable(prompt_batches(path, None), 100, None, reasons) == 2 and reasons.rows == {reason: [2]}
    one_row_file = lines(tmp_path / "alone.jsonl", {"prompt": value})
    with pytest.raises((ConfigError, DataError), match=f"has no usable prompt: {reason}: 1 rows .1.|has no prompts"):
        load(one_row_file, tmp_path)


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"conversations": SHAREGPT}, [{"role": "system", "content": "be kind"}, {"role": "user", "content": "one"}]),
        ({"conversations": [*SHAREGPT, {"from": "user", "value": "three"}]}, [*SYSTEM, *user("one"), ANSWER, *user("three")]),
        ({"id": "1", "messages": [USER, ASSISTANT, USER]}, [USER, ASSISTANT, USER]),
        ({"prompt": "q", "chosen": [USER, ASSISTANT], "rejected": [USER, ASSISTANT], "messages": [USER, ASSISTANT]}, user("q")),
        ({"source": "s", "instruction": "q", "completions": [{"response": "a"}], "models": ["m"]}, user("q")),
        ({"prompt": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]}, user("ab")),
        ({"prompt": [{"type": "text", "text": "a"}]}, user("a")),
        ({"prompt": [USER | {"name": "n", "weight": 1.5}]}, [USER]),
        ({"prompt": json.dumps([USER])}, [USER]),
        ({"prompt": "[1, 2] is a list"}, user("[1, 2] is a list")),
    ],
)  # fmt: skip
def test_common_shapes_are_read(tmp_path: Path, row: dict[str, object], messages: list[dict[str, str]]) -> None:
    assert load(lines(tmp_path / "p.jsonl", row, row), tmp_path)[0] == [messages]
    (tmp_path / "list.json").write_text(json.dumps([row], indent=2))
    assert load(tmp_path / "list.json", tmp_path)[0] == [messages]
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "p.parquet")
    assert load(tmp_path / "p.parquet", tmp_path)[0] == [messages]


def test_types_that_differ_between_rows_are_distinguished(tmp_path: Path) -> None:
    values = ["text", 1, [USER], None, {"a": 1}, True, ["a"], 2.5, "more", SHAREGPT, [[1]], 10**30, DEEP[0][0]]
    with pytest.raises(ConfigError, match="line 13: it is nested deeper"):
        load(lines(tmp_path / "deep.jsonl", *({"prompt": value} for value in values)), tmp_path)
    prompts, counts = load(lines(tmp_path / "p.jsonl", *({"prompt": value} for value in values[:-1])), tmp_path)
    assert len(prompts) == 4 and counts["read"] == 12 == 4 + sum(count for reason, count in counts.items() if reason != "read")


def test_chat_messages_in_a_csv_are_messages_and_not_a_text(tmp_path: Path) -> None:
    quoted_messages = json.dumps([USER]).replace('"', '""')
    (tmp_path / "p.csv").write_text(f"prompt,n\n\"{quoted_messages}\",1\n\"[{{'role': 'user', 'content': 'x'}}]\",2\nplain,3\n")
    prompts, counts = load(tmp_path / "p.csv", tmp_path)
    assert prompts == [[USER], user("plain")] and counts == {"read": 3, "messages_as_text": 1}


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv"])
def test_byte_order_marks_line_ends_and_empty_lines_are_not_part_of_prompts(tmp_path: Path, suffix: str) -> None:
    text = "prompt\r\none\r\n\r\nzwei ü\r\n" if suffix == "csv" else '{"prompt": "one"}\r\n\r\n  \r\n{"prompt": "zwei ü"}\r\n'
    (tmp_path / f"p.{suffix}").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert load(tmp_path / f"p.{suffix}", tmp_path)[0] == [user("one"), user("zwei ü")]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("p.jsonl", b"", "is empty"),
        ("p.jsonl", b" \n\n", "is empty"),
        ("p.parquet", b"", "cannot be read as .parquet"),
        ("p.csv", b"prompt\n", "has no prompts in column 'prompt'"),
        ("p.jsonl", '{"prompt": "x"}\n'.encode("utf-16"), "is not UTF-8 text"),
        ("p.csv", "prompt\nx\n".encode("utf-16-le"), "is not UTF-8 text"),
        ("p.jsonl", b'{"prompt": "x"}\n{"prompt": "\xff"}\n', "line 2: 'utf-8' codec can't decode"),
        ("p.csv", b"prompt\n\xff\xff\n", "invalid UTF8"),
        ("p.jsonl", b'{"prompt": "x"}\n{"prompt": "y", "prompt": "z"}\n', "line 2: the key 'prompt' occurs twice"),
        ("p.csv", b"prompt,prompt\na,b\n", "has the column 'prompt' more than once"),
        ("p.csv", b"prompt,n\na,1\nb,2,3\n", "Expected 2 columns, got 3"),
        ("p.json", b'{\n "prompt": "x"\n}', "line 1: .*one object per line, or one list of objects"),
        ("p.json", b'["a", "b"]', "entry 1: 'a' is not an object"),
        ("p.json", b'[{"prompt": "a"}', "cannot be read as .json"),
        ("p.jsonl", b'{"prompt": "a"}\n"b"\n', "line 2: 'b' is not an object"),
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt": ' + b"9" * 5000 + b"}\n", "line 2: "),
        ("p.jsonl", b"[" * 5000, "nested deeper"),
        ("p.jsonl", b'{"text": "a"}\n', "has no column 'prompt' or 'messages' or 'conversations' or 'instruction'; it has text"),
        ("p.jsonl", b'{"instruction": "a", "input": "b"}\n', "has separate columns for instruction and input"),
    ],
)
def test_an_unreadable_file_is_an_error_with_place_and_reason(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=says) as error:
        list(prompt_batches(tmp_path / name, None))
    assert all("\n" not in fault and len(fault) < 700 for fault in error.value.faults)


def test_a_row_with_a_lone_surrogate_in_its_reference_is_left_out(tmp_path: Path) -> None:
    path = lines(tmp_path / "p.jsonl", {"prompt": "a", "answer": "\ud800"}, {"prompt": "b", "answer": ["c"]})
    prompts, counts = load(path, tmp_path, reference_column="answer")
    assert prompts == [user("b")] and counts == {"read": 2, "half_a_character": 1}


def test_nan_in_a_reference_column_means_no_reference(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["a", "b", "c"], "answer": [72.0, float("nan"), None]}), tmp_path / "p.parquet")
    load(tmp_path / "p.parquet", tmp_path, reference_column="answer")
    assert read_table(tmp_path / "out")["reference"].to_pylist() == ["72.0", None, None]
    assert [reference_text(value) for value in (72.0, float("nan"), None, "NaN")] == ["72.0", None, None, "NaN"]


def recipe_with(path: Path, **settings: object) -> Any:
    return load_recipe("quickstart", [f"prompts={json.dumps({'kind': 'file', 'path': str(path), **settings})}"])


def test_validate_reports_left_out_rows_and_refuses_a_file_without_a_prompt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": f"Say {n}."} for n in range(60)]
    check(recipe_with(lines(tmp_path / "p.jsonl", *rows, {"prompt": 3}, {"prompt": [USER, ASSISTANT]}, {"prompt": 4})))
    message = capsys.readouterr().err
    assert (
        "3 of 63 rows of" in message
        and "number_or_other_value: 2 rows (61, 63)" in message
        and "last_turn_not_of_user: 1 rows (62)" in message
    )
    with pytest.raises(ConfigError, match=r"has no prompt that can be used: dict: 2 rows \(1, 2\)"):
        check(recipe_with(lines(tmp_path / "q.jsonl", {"prompt": {"a": 1}}, {"prompt": {"a": 2}})))


def test_a_size_beyond_the_file_is_reported_and_the_plan_uses_the_number_of_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_with(lines(tmp_path / "p.jsonl", *({"prompt": f"Say {n}."} for n in range(60))), size=500)
    check(recipe)
    assert "prompts.size: is 500, but" in (message := capsys.readouterr().err) and "has 60 usable prompts" in message
    assert prompt_count(recipe, resolve(recipe), build_rounds(recipe), Run(tmp_path / "run")) == 60


def test_renaming_a_prompt_file_or_a_policys_folder_reruns_nothing(tmp_path: Path) -> None:
    import shutil

    lines(tmp_path / "p.jsonl", *({"prompt": f"Say {n}."} for n in range(12)))
    shutil.copy(tmp_path / "p.jsonl", tmp_path / "renamed.json")
    policy = Path(__file__).parents[2] / "eva_stages/lettercraft/base_policy"
    prints = []
    for name, file in (("one", "p.jsonl"), ("other", "renamed.json")):
        shutil.copytree(policy, tmp_path / name)
        recipe = load_recipe("quickstart", [f"prompts={{kind: file, path: {tmp_path / file}}}", f"policy.model={tmp_path / name}"])
        prints.append({stage.label: stage.fingerprint for iteration in build_rounds(recipe) for stage in iteration.stages})
    assert prints[0] == prints[1]
    context: Any = SimpleNamespace(work=tmp_path / "work", artifact=tmp_path / "out")
    context.work.mkdir()
    rows = []
    for file in ("p.jsonl", "renamed.json"):
        load_file(context, str(tmp_path / file), None, size=None, max_characters=100, seed=1)
        rows.append((tmp_path / "out" / "rows.parquet").read_bytes())
    assert rows[0] == rows[1], "the rows do not hold the name of their file"
