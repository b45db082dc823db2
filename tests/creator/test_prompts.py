import json
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from eva_stages.core.errors import ConfigError, DataError
from eva_stages.core.tables import read_table
from eva_stages.creator.prompt_files import BLOCK, prompt_batches
from eva_stages.creator.prompt_loading import count_usable, load_file

CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}, {"role": "user", "content": "and now?"}]


def load(path: Path, tmp_path: Path, **settings: object) -> tuple[list[dict], dict]:
    context = SimpleNamespace(work=tmp_path / "work", artifact=tmp_path / "out")
    context.work.mkdir(exist_ok=True)
    defaults = {"column": "prompt", "size": None, "max_characters": 100, "seed": 1}
    output = load_file(context, file=str(path), **{**defaults, **settings})  # type: ignore[arg-type]
    return read_table(tmp_path / "out").to_pylist(), output["counts"]


def lines(path: Path, values: list) -> Path:
    path.write_text("".join(json.dumps({"prompt": value}) + "\n" for value in values))
    return path


def test_what_cannot_be_used_is_left_out_and_counted(tmp_path: Path) -> None:
    rows, counts = load(lines(tmp_path / "p.jsonl", ["one", None, "two", " one ", "", "x" * 101, "   "]), tmp_path)
    assert [row["messages"][0]["content"] for row in rows] == ["one", "two"]
    assert counts == {"read": 7, "null_or_empty": 3, "duplicate": 1, "too_long": 1}
    assert all(row["root_id"] == row["prompt_id"] and row["generation"] == 0 and row["parent_id"] is None for row in rows)


def test_conversations_keep_their_turns(tmp_path: Path) -> None:
    rows, counts = load(lines(tmp_path / "p.jsonl", [CHAT, CHAT[:2], [{"role": "tool", "content": "x"}]]), tmp_path)
    assert [row["messages"] for row in rows] == [CHAT] and counts == {"read": 3, "last_turn_not_of_user": 1, "tool_turn": 1}


def test_every_kind_of_file_is_read(tmp_path: Path) -> None:
    table = pa.table({"prompt": ["one", "two"], "other": [1, 2]})
    pq.write_table(table, tmp_path / "p.parquet")
    pyarrow.csv.write_csv(table, tmp_path / "p.csv")
    lines(tmp_path / "p.json", ["one", "two"])
    for name in ("p.parquet", "p.csv", "p.json"):
        assert [value for block in prompt_batches(tmp_path / name, "prompt") for value in block.values] == ["one", "two"]


def test_a_sample_is_seeded_and_of_the_asked_size(tmp_path: Path) -> None:
    path = lines(tmp_path / "p.jsonl", [f"prompt {n}" for n in range(50)])
    first, counts = load(path, tmp_path, size=10)
    assert len(first) == 10 and counts["not_sampled"] == 40
    assert load(path, tmp_path, size=10)[0] == first != load(path, tmp_path, size=10, seed=2)[0]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("gone.jsonl", None, "there is no file"),
        ("empty.jsonl", "", "is empty"),
        ("p.txt", "hello", r"ends in .txt; known: .jsonl"),
        ("p.jsonl", '{"instruction": "x"}\n', "has no column 'prompt'; it has instruction"),
        ("p.jsonl", '{"prompt": null}\n', "has no prompts in column"),
        ("p.jsonl", "{not json\n", "cannot be read as .jsonl"),
    ],
)
def test_a_file_without_prompts_says_what_is_wrong(tmp_path: Path, name: str, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=says):
        list(prompt_batches(tmp_path / name, "prompt"))


def test_a_file_of_unusable_prompts_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no usable prompt"):
        load(lines(tmp_path / "p.jsonl", ["x" * 200, "  "]), tmp_path)


def test_a_file_is_read_in_blocks_and_duplicates_are_found_across_them(tmp_path: Path) -> None:
    texts = [f"{n} " + "x" * 90 for n in range(15_000)]
    rows, counts = load(lines(tmp_path / "p.jsonl", [*texts, texts[7], None]), tmp_path)
    assert (tmp_path / "p.jsonl").stat().st_size > BLOCK
    assert [row["messages"][0]["content"] for row in rows] == texts
    assert counts == {"read": 15_002, "null_or_empty": 1, "duplicate": 1}
    assert count_usable(prompt_batches(tmp_path / "p.jsonl", "prompt"), 100) == 15_000


def test_a_csv_is_read_in_blocks_with_lines_in_its_values_and_all_of_them_as_text(tmp_path: Path) -> None:
    line_count = 3 * BLOCK // 40
    texts = [f"{number}\nand a second line, quoted" for number in range(line_count)]
    table = {
        "id": ["", *range(line_count)],
        "prompt": ["42", *texts],
        "answer": ["3.10", *["" if n % 2 else "yes" for n in range(line_count)]],
    }
    pyarrow.csv.write_csv(
        pa.table({name: pa.array([str(value) for value in values]) for name, values in table.items()}), tmp_path / "p.csv"
    )
    blocks = list(prompt_batches(tmp_path / "p.csv", "prompt", "answer"))
    assert len(blocks) > 3 and sum(len(block.values) for block in blocks) == line_count + 1
    rows, counts = load(tmp_path / "p.csv", tmp_path, reference_column="answer")
    assert [row["messages"][0]["content"] for row in rows] == ["42", *texts] and counts == {"read": line_count + 1}
    assert [row["reference"] for row in rows[:3]] == ["3.10", "yes", None]
    (tmp_path / "n.csv").write_text("prompt\n1\n2\n")
    assert [row["messages"][0]["content"] for row in load(tmp_path / "n.csv", tmp_path)[0]] == ["1", "2"]


def test_a_reference_that_looks_like_a_date_or_a_number_stays_what_it_is(tmp_path: Path) -> None:
    answers = ["2020-01-01", 5, 5.5, None, ["a", 1], {"b": True}, "x"]
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{n}?", "answer": answer}) + "\n" for n, answer in enumerate(answers)))
    rows, _ = load(path, tmp_path, reference_column="answer")
    assert [row["reference"] for row in rows] == ["2020-01-01", "5", "5.5", None, '["a", 1]', '{"b": true}', "x"]
    pq.write_table(pa.table({"prompt": ["1?"], "answer": pa.array([18262], pa.date32())}), tmp_path / "p.parquet")
    assert load(tmp_path / "p.parquet", tmp_path, reference_column="answer")[0][0]["reference"] == "2020-01-01"
    path.write_text('{"prompt": "x"}\n\n[1]\n')
    with pytest.raises(ConfigError, match=r"cannot be read as \.jsonl: line 3: .* is not an object"):
        list(prompt_batches(path, "prompt"))
