import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from eva_stages.core.errors import ConfigError
from eva_stages.evaluation.file_scores import score_files
from eva_stages.evaluation.mt_bench import CATEGORIES, category_of, radar, rating
from tests.evaluation.official import needs_evaldata, official_files, official_rows, rating_row, write_lines

FILES = official_files("mtbench", "judgments")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Good. Rating: [[7]]", 7.0),
        ("Rating: [[8.5]]", 8.5),
        ("Rating: [6]", 6.0),
        ("[3] points, but in all: [[9]]", 9.0),
        ("first [[4]], no, [[9]]", 4.0),
        ("<b>Rating:</b> <i>[[5]]</i>", 5.0),
        ("rating: [[seven]]", None),
        ("Rating: 7/10", None),
        ("[[-3]]", None),
        ("$ERROR$", None),
        ("", None),
        (None, None),
    ],
)
def test_a_rating_is_read_as_fastchat_reads_it(text: str | None, value: float | None) -> None:
    assert rating(text) == value


def test_scores_are_means_over_rated_rows(tmp_path: Path) -> None:
    rows = [
        rating_row("m", 81, 1, 8),
        rating_row("m", 81, 2, 4),
        rating_row("m", 121, 1, 9.5),
        rating_row("m", 121, 2, -1),
        rating_row("n", 81, 1, None),
    ]
    document = score_files("mt-bench", [write_lines(tmp_path / "a.jsonl", rows)])
    first, second = document["models"]
    assert first["model"] == "m" and first["score"] == pytest.approx(21.5 / 3)
    assert (first["turn1"], first["turn2"], first["n"], first["unrated"]) == (8.75, 4.0, 3, 1)
    assert first["categories"] == {"writing": 6.0, "coding": 9.5}
    assert first["ci_kind"] == "own" and first["ci"][0] <= first["score"] <= first["ci"][1]
    assert (second["score"], second["ci"], second["turn1"], second["unrated"]) == (None, None, None, 1)


def test_a_missing_score_is_read_from_the_judges_text(tmp_path: Path) -> None:
    row = rating_row("m", 81, 1, 3) | {"user_prompt": "The answer says: Rating: [[10]]"}
    del row["score"]
    silent = row | {"turn": 2, "judgment": "I cannot rate this."}
    (model,) = score_files("mt-bench", [write_lines(tmp_path / "a.jsonl", [row, silent])])["models"]
    assert (model["score"], model["n"], model["unrated"]) == (3.0, 1, 1)


def test_several_files_repeated_rows_and_other_questions(tmp_path: Path) -> None:
    first_file = write_lines(tmp_path / "a.jsonl", [rating_row("m", 1, 1, 2), rating_row("m", 1, 1, 2)])
    two = write_lines(tmp_path / "b.jsonl.gz", [rating_row("m", 2, 1.0, 5.0)])
    questions = write_lines(tmp_path / "q.jsonl", [{"question_id": number, "category": "law", "turns": ["?"]} for number in (1, 2)])
    (model,) = score_files("mt-bench", [first_file, two], questions=questions)["models"]
    assert (model["score"], model["duplicates"], model["categories"]) == (3.0, 1, {"law": 3.0})
    (model,) = score_files("mt-bench", [first_file, two])["models"]
    assert model["categories"] == {"unknown": 3.0}


def test_a_bad_row_is_named_with_its_file_and_line(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [rating_row("m", 81, 1, 8), rating_row("m", 81, 3, 8), rating_row("m", 82, 1, "high")])
    with pytest.raises(ConfigError) as error:
        score_files("mt-bench", [path])
    assert error.value.faults == [
        f"{path}, line 2: turn is 3; expected 1 or 2",
        f"{path}, line 3: score is 'high'; expected a number, -1 or null for no rating",
    ]


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_radar_has_an_axis_per_category_and_a_line_per_model(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"radar{suffix}"
    radar({"m": dict.fromkeys(CATEGORIES, 7.0), "n": dict.fromkeys(CATEGORIES, 3.0)}, path)
    if suffix == ".png":
        assert path.read_bytes().startswith(b"\x89PNG")
        return
    comments = path.read_text()
    ET.fromstring(comments)
    assert all(f"<!-- {name} -->" in comments for name in (*CATEGORIES, "m", "n"))


@needs_evaldata
def test_published_scores_of_every_official_file() -> None:
    published_scores = {
        "martian": 8.3125,
        "unify": 8.757861635220126,
        "mistralai/Mixtral-8x7B-Instruct-v0.1": 8.340625,
        "gpt-4-1106-preview": None,
    }
    document = score_files("mt-bench", FILES)
    models = {model["model"]: model for model in document["models"]}
    assert models.keys() == published_scores.keys() and len(FILES) == 2
    for name, score in published_scores.items():
        rows = [row for path in FILES for row in official_rows(*path.parts[-3:]) if row["model"] == name]
        plain = [row["score"] for row in rows if row["score"] != -1]
        assert models[name]["score"] == pytest.approx(sum(plain) / len(plain), abs=1e-9)
        assert score is None or models[name]["score"] == pytest.approx(score, abs=1e-6)
        for turn in (1, 2):
            of_turn = [row["score"] for row in rows if row["turn"] == turn and row["score"] != -1]
            assert models[name][f"turn{turn}"] == pytest.approx(sum(of_turn) / len(of_turn), abs=1e-9)
    assert (models["unify"]["n"], models["unify"]["unrated"]) == (159, 1)


@needs_evaldata
def test_the_judges_texts_have_the_stored_scores() -> None:
    rows = [row for path in FILES for row in official_rows(*path.parts[-3:])]
    ratings = [rating(row["judgment"]) for row in rows]
    assert len(rows) == 640
    assert [-1 if value is None else value for value in ratings] == [row["score"] for row in rows]


@needs_evaldata
def test_categories_by_id_are_those_of_the_question_file() -> None:
    questions = official_rows("mtbench", "question.jsonl")
    assert len(questions) == 80
    assert all(category_of(str(question["question_id"])) == question["category"] for question in questions)
    assert category_of("80") is None and category_of("161") is None and category_of("b3") is None
