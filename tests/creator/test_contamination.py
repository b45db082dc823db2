"""Decontamination: on texts of our own, and on the official questions against prompts that have nothing to do with them."""

import csv
import gzip
import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eva_stages.core.distil import run_table_step
from eva_stages.core.errors import DataError
from eva_stages.core.question_files import read_questions
from eva_stages.core.rows import SCHEMAS, prompt_row
from eva_stages.core.stage import Use
from eva_stages.core.tables import read_table, write_rows
from eva_stages.creator.contamination import MATCHES, MIN_CONTAINED_WORDS, Contamination, DropMatches, QuestionIndex, words_of
from tests.conftest import EVALDATA

LONG = "Explain in plain words how a suspension bridge carries the weight of all the cars that cross it on a windy day in winter"
MEDIUM = "Which three rivers meet in the old town of Passau?"
SHORT = "Who invented the zip?"
SENTENCE = "Take your time and think about every step of it before you answer."
BENCHMARKS = {
    "alpaca-eval": ("alpacaeval/alpaca_eval_gpt4_baseline.json.gz", 805),
    "mt-bench": ("mtbench/question.jsonl", 160),
    "arena-hard-v0.1": ("arenahard/question_v0.1.jsonl", 500),
    "arena-hard-v2.0": ("arenahard/question_v2.0.jsonl.gz", 750),
}
UNRELATED_PROMPTS = [
    "verifiable/gsm8k_test.jsonl",
    "verifiable/ifeval_input_data.jsonl",
    "prompts/koala_test_set.jsonl",
    "prompts/self-instruct_seed_tasks.jsonl",
    "prompts/self-instruct_user_oriented_instructions.jsonl",
    "prompts/vicuna_bench_question.jsonl",
]

needs_evaldata = pytest.mark.skipif(not EVALDATA.is_dir(), reason="no official evaluation sets here")


def index(*texts: str, **settings: float) -> QuestionIndex:
    return QuestionIndex({"bench": [(str(number), text) for number, text in enumerate(texts)]}, **settings)


def prompts(*texts: str) -> pa.Table:
    return pa.Table.from_pylist([prompt_row([{"role": "user", "content": text}], "test") for text in texts], schema=SCHEMAS["prompts"])


def test_case_punctuation_and_white_space_do_not_matter() -> None:
    assert words_of("Don\u2019t  STOP,\n(now)!") == ("dont", "stop", "now")
    for text in (LONG.upper(), LONG.replace(" ", " ... "), f"\n\t{LONG}?!"):
        match = index(LONG).match(text)
        assert match is not None and match.overlap == 1.0 and match.question == LONG


def test_overlap_is_the_share_of_the_questions_ngrams() -> None:
    words = LONG.split()
    part = " ".join(words[:15]) + " and then tell me about the other things in your own garden, from the apple trees to the pond"
    match = index("another question", LONG).match(part)
    assert match is not None and match.question_id == "1"
    assert match.overlap == pytest.approx(3 / (len(words) - 12))
    assert index(LONG, overlap=0.3).match(part) is None


def test_the_question_that_a_prompt_holds_most_of_is_named() -> None:
    longer_text = " ".join(LONG.split()[:20])
    match = index(LONG, longer_text).match(f"{SENTENCE} {longer_text}")
    assert match is not None and match.question_id == "1" and match.overlap == 1.0


def test_a_question_shorter_than_an_ngram_counts_when_it_is_contained_whole() -> None:
    match = index(MEDIUM).match(f"{SENTENCE} {MEDIUM} {SENTENCE}")
    assert match is not None and match.overlap == 1.0
    assert index(MEDIUM).match("Which three rivers meet in the old harbour of Hamburg, and where do they come from?") is None


def test_a_question_below_eight_words_counts_only_when_it_is_the_prompt() -> None:
    assert index(SHORT).match("who invented the zip") is not None
    assert index(SHORT).match("Write an essay about the woman or man who invented the zip.") is None


def test_questions_in_scripts_without_spaces_are_found_inside_other_text() -> None:
    question = "请用简单的方法证明拉格朗日中值定理并举一个例子"
    match = index(question).match(f"你好。{question}。谢谢")
    assert match is not None and match.overlap == 1.0
    assert index(question).match("请写一首关于冬天的诗") is None


def test_a_word_replaced_in_the_middle_of_a_short_question_does_not_hide_it() -> None:
    question = "Describe how a young nurse from a small village learns to read the weather from clouds and birds"
    words = question.split()
    words[9] = "mountain"
    match = index(question).match(" ".join(words))
    assert match is not None and 0.5 <= match.overlap < 1


def test_texts_without_words_match_nothing() -> None:
    assert index("", "...", LONG).match("?!") is None
    assert index().match(LONG) is None


def test_every_turn_of_a_conversation_is_looked_at_and_rejected_rows_are_not(tmp_path: Path) -> None:
    file = tmp_path / "bench.jsonl"
    file.write_text(json.dumps({"question_id": 7, "turns": [LONG, SHORT]}) + "\n")
    talk = [("user", "Hello there"), ("assistant", "Hello."), ("user", SHORT)]
    rows = [prompt_row([{"role": role, "content": text} for role, text in talk], "test"), *prompts(LONG, "Name a fruit").to_pylist()]
    rows = [row | {"rejected": None} for row in rows] + [row | {"rejected": "refusal"} for row in prompts(LONG + "!").to_pylist()]
    table = pa.Table.from_pylist(rows, schema=SCHEMAS["evolutions"])
    matches, counts = Contamination(name="contamination", benchmarks={"bench": str(file)}).transform(table)
    assert counts == {"prompts": 3, "contaminated": 2} and matches.schema == MATCHES
    assert [(row["prompt_id"], row["question"]) for row in matches.to_pylist()] == [
        (rows[0]["prompt_id"], SHORT),
        (rows[1]["prompt_id"], LONG),
    ]
    assert set(matches["question_id"].to_pylist()) == {"7"} and matches["prompt"][0].as_py() == f"Hello there\nHello.\n{SHORT}"
    kept_rows, counts = DropMatches(name="drop").transform(table, matches)
    assert counts == {"contaminated": 2, "kept": 2} and kept_rows.schema == table.schema
    assert kept_rows["prompt_id"].to_pylist() == [row["prompt_id"] for row in rows[2:]]


def test_the_steps_run_on_artifacts_with_and_without_matches(tmp_path: Path) -> None:
    file = tmp_path / "bench.csv"
    with file.open("w", newline="") as handle:
        csv.writer(handle).writerows([["id", "question"], ["a", f"{LONG}\nand, in summer?"]])
    write_rows([prompts("Name a fruit", LONG)], SCHEMAS["prompts"], tmp_path / "prompts")
    find = Use("eva_stages.creator.contamination:Contamination", {"name": "find", "benchmarks": {"own": str(file)}})
    drop = Use("eva_stages.creator.contamination:DropMatches", {"name": "drop"})
    folders = {name: tmp_path / name for name in ("prompts", "matches", "kept", "none", "same")}
    assert run_table_step(folders, ["prompts"], find, folders["matches"]) == {"prompts": 2, "contaminated": 1}
    assert run_table_step(folders, ["prompts", "matches"], drop, folders["kept"]) == {"contaminated": 1, "kept": 1}
    assert run_table_step(folders, ["kept"], find, folders["none"]) == {"prompts": 1, "contaminated": 0}
    assert run_table_step(folders, ["kept", "none"], drop, folders["same"]) == {"contaminated": 0, "kept": 1}
    assert read_table(folders["none"]).schema == MATCHES
    assert read_table(folders["same"]) == read_table(folders["kept"])


def test_questions_are_read_from_every_kind_of_file(tmp_path: Path) -> None:
    rows = [{"id": "a", "prompt": "One\u2028more?"}, {"id": "b", "prompt": 'Two, "three"?\nFour'}]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "q.jsonl").write_text(lines)
    (tmp_path / "lines.json").write_text(lines)
    (tmp_path / "q.json").write_text("\ufeff" + json.dumps(rows))
    (tmp_path / "q.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "q.parquet")
    with (tmp_path / "q.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, ["id", "prompt"])
        writer.writeheader()
        writer.writerows(rows)
    for file in tmp_path.iterdir():
        assert read_questions(file) == [(row["id"], row["prompt"]) for row in rows], file.name


def test_only_what_the_user_says_in_messages_is_a_question(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    talk = [{"role": "system", "content": "Be kind"}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    file.write_text(json.dumps({"messages": [*talk, {"role": "user", "content": "Why?"}]}))
    assert read_questions(file) == [("0", "Hi"), ("0", "Why?")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.jsonl", b'{"text": "a", "label": 1}', "has the columns text, label; expected one of prompt"),
        ("q.jsonl", b"", r"has the columns \(none\)"),
        ("q.jsonl", b'{"prompt": "a"}\n{"prompt": null}', r"row 1 \(from 0\) has no text in 'prompt'"),
        ("q.json", b"[1, 2]", "entry 1: 1 is not an object"),
        ("q.json", b"{", "cannot be read as .json"),
        ("q.json.gz", b"\x1f\x8b[]", "cannot be read as .json.gz"),
        ("q.parquet", b"PAR0", "cannot be read as .parquet"),
        ("q.txt", b"a", "has an unknown file type; known: .jsonl"),
    ],
)
def test_files_that_hold_no_questions_are_named_with_what_is_known(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_questions(tmp_path / name)
    assert name in str(error.value)
    with pytest.raises(DataError, match="cannot be read"):
        read_questions(tmp_path / "missing.csv")


@pytest.fixture(scope="module")
def official() -> dict[str, list[tuple[str, str]]]:
    return {name: read_questions(EVALDATA / file) for name, (file, _) in BENCHMARKS.items()}


@pytest.fixture(scope="module")
def official_index(official: dict[str, list[tuple[str, str]]]) -> QuestionIndex:
    return QuestionIndex(official)


def counts_by_reason(questions: QuestionIndex, texts: Sequence[str]) -> float:
    """The share of texts that is contaminated."""
    return sum(questions.match(text) is not None for text in texts) / len(texts)


def with_replaced_words(text: str, count: int, pool: Sequence[str], rng: random.Random) -> str:
    """The text with words at random places replaced by random words."""
    words = text.split()
    for place in rng.sample(range(len(words)), count):
        words[place] = rng.choice(pool)
    return " ".join(words)


@needs_evaldata
def test_official_files_are_read_whole(official: dict[str, list[tuple[str, str]]]) -> None:
    assert {name: len(questions) for name, questions in official.items()} == {name: size for name, (_, size) in BENCHMARKS.items()}
    assert official["mt-bench"][1] == ("81", "Rewrite your previous response. Start every sentence with the letter A.")
    assert read_questions(EVALDATA / "arenahard/question_v0.1_uidformat.jsonl") == official["arena-hard-v0.1"]


@needs_evaldata
@pytest.mark.parametrize("benchmark", BENCHMARKS)
@pytest.mark.parametrize(
    "change",
    [str, str.upper, lambda text: re.sub(r"[^\w\s]", "", text), lambda text: re.sub(r"\W+", " - ", text)],
    ids=["verbatim", "upper case", "no punctuation", "other punctuation"],
)
def test_copies_of_official_questions_are_found(
    official: dict[str, list[tuple[str, str]]], official_index: QuestionIndex, benchmark: str, change: Callable[[str], str]
) -> None:
    assert counts_by_reason(official_index, [change(text) for _, text in official[benchmark]]) == 1.0


@needs_evaldata
@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_official_questions_are_found_behind_and_before_a_sentence(
    official: dict[str, list[tuple[str, str]]], official_index: QuestionIndex, benchmark: str
) -> None:
    texts = [text for _, text in official[benchmark] if len(words_of(text)) >= MIN_CONTAINED_WORDS]
    assert counts_by_reason(official_index, [f"{SENTENCE} {text}" for text in texts]) == 1.0
    assert counts_by_reason(official_index, [f"{text}\n{SENTENCE}" for text in texts]) == 1.0


@needs_evaldata
@pytest.mark.parametrize("benchmark", BENCHMARKS)
@pytest.mark.parametrize("count", [1, 2])
def test_near_copies_of_official_questions_are_found(
    official: dict[str, list[tuple[str, str]]], official_index: QuestionIndex, benchmark: str, count: int
) -> None:
    rng = random.Random(count)
    pool = [word for _, text in official["alpaca-eval"] for word in text.split()]
    texts = [text for _, text in official[benchmark] if len(text.split()) >= 15]
    assert counts_by_reason(official_index, [with_replaced_words(text, count, pool, rng) for text in texts]) >= 0.95


@needs_evaldata
def test_hardly_any_unrelated_prompt_is_flagged(official: dict[str, list[tuple[str, str]]], official_index: QuestionIndex) -> None:
    questions = ["".join(words_of(text)) for name in official for _, text in official[name]]
    unrelated_prompts = [
        text
        for file in UNRELATED_PROMPTS
        for _, text in read_questions(EVALDATA / file)
        if not is_question("".join(words_of(text)), questions)
    ]
    assert len(unrelated_prompts) > 2000
    assert counts_by_reason(official_index, unrelated_prompts) <= 0.01


def is_question(text: str, questions: Sequence[str]) -> bool:
    """Whether a text without spaces truly is in the evaluation sets: equal to a question, or one whole in the other."""
    return any(
        text == other_row or (len(other_row) >= 24 and other_row in text) or (len(text) >= 12 and text in other_row)
        for other_row in questions
    )
