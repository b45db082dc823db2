"""The contract of `eva eval score` and `eva eval compare`: exit codes, one JSON document, and what its fields are."""

import csv
import io
import json
from pathlib import Path

import pytest

from tests.conftest import run_eva
from tests.evaluation.official import annotation_row, judgment_row, rating_row, write_lines

OFFLINE = {"HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judgments")
    for name, shift in (("good", 2), ("poor", 0)):
        write_lines(
            folder / f"{name}.jsonl",
            [rating_row(name, number, turn, 5 + shift + number % 3) for number in range(81, 101) for turn in (1, 2)],
        )
    write_lines(folder / "arena.jsonl.gz", [judgment_row("m", f"q{number}", "B>A", "A>B" if number % 2 else None) for number in range(8)])
    (folder / "alpaca.json").write_text(json.dumps([annotation_row("m", f"i{number}", 1 + number / 4) for number in range(5)]))
    return folder


def test_json_is_one_document_with_the_fields_of_the_contract(files: Path) -> None:
    result = run_eva("eval", "score", "mt-bench", "--judgments", "good.jsonl", "poor.jsonl", "--json", cwd=files)
    document = json.loads(result.stdout)
    assert document["bench"] == "mt-bench" and [model["model"] for model in document["models"]] == ["good", "poor"]
    assert {"model", "score", "ci", "turn1", "turn2", "categories", "n"} <= document["models"][0].keys()
    (difference,) = document["differences"]
    assert (difference["a"], difference["b"], difference["value"]) == ("good", "poor", pytest.approx(-2))
    assert document["published"][0].keys() == {"model", "score", "source", "detail"}
    result = run_eva("eval", "score", "--judgments", "arena.jsonl.gz", "arena-hard", "--json", cwd=files)
    (model,) = json.loads(result.stdout)["models"]
    assert model["score"] == model["win_rate"] == 100 and model["no_verdict"] == 4 and len(model["ci"]) == 2
    home = {"HF_HOME": str(files / "empty"), **OFFLINE}
    result = run_eva("eval", "score", "alpaca-eval", "--judgments=alpaca.json", "--json", cwd=files, **home)
    (model,) = json.loads(result.stdout)["models"]
    assert {"win_rate", "lc_win_rate", "se", "avg_length"} <= model.keys()
    assert model["win_rate"] == 50 and model["score"] is None and "df_gamed.csv" in model["reason"]


def test_tables_say_what_is_official_and_what_is_our_own(files: Path) -> None:
    arguments = ("eval", "score", "mt-bench", "--judgments", "good.jsonl", "poor.jsonl")
    output = run_eva(*arguments, "--radar", "radar.svg", cwd=files).stdout
    assert "official figure" in output and "eva's own" in output and "scored here" in output and "published (1)" in output
    assert (files / "radar.svg").read_text().count("<!-- good -->") == 1
    rows = list(csv.DictReader(io.StringIO(run_eva(*arguments, "--csv", cwd=files).stdout)))
    assert rows[0]["model"] == "good" and float(rows[0]["score"]) == pytest.approx(7.95)
    assert {row["source"].split(" ")[0] for row in rows} == {"scored", "published"}
    markdown = run_eva(*arguments, "--markdown", cwd=files).stdout
    assert markdown.startswith("**mt-bench**\n\n| model | score |") and "| good | 7.95 |" in markdown


def test_every_fault_of_the_arguments_exits_with_2_and_leaves_stdout_empty(files: Path) -> None:
    wrong = [
        (("mt-bench",), ["--judgments"]),
        (
            ("chess", "--judgments", "good.jsonl", "--radar", "no/a.pdf"),
            ["there is no benchmark 'chess'; known: mt-bench", "use .png or", "no folder no"],
        ),
        (
            ("arena-hard", "--judgments", "good.jsonl", "no.jsonl", "--json"),
            ["good.jsonl, line 1: looks like FastChat", "no.jsonl does not"],
        ),
        (("mt-bench", "--judgments", "good.jsonl", "--json", "--csv"), ["exclude each other; use one"]),
        (("mt-bench", "--judgments", "good.jsonl", "--gamed", "x.csv"), ["--gamed is for alpaca-eval only"]),
    ]
    for arguments, messages in wrong:
        result = run_eva("eval", "score", *arguments, cwd=files, code=2)
        assert result.stdout == "" and all(message in result.stderr for message in messages), result.stderr


def test_two_files_of_judgments_are_compared_question_by_question(files: Path) -> None:
    arguments = ("eval", "compare", "poor.jsonl", "good.jsonl", "--bench", "mt-bench")
    document = json.loads(run_eva(*arguments, "--json", cwd=files).stdout)
    (difference,) = document["differences"]
    assert document["kind"] == "own" and difference["policy"] == "poor / good"
    assert (difference["value"], difference["improvement"], difference["n"]) == (pytest.approx(2), 1.0, 20)
    assert difference["low"] == pytest.approx(2) and difference["p_value"] == difference["p_holm"] < 0.001
    assert "eva's own figures" in run_eva(*arguments, cwd=files).stdout
    result = run_eva("eval", "compare", "poor.jsonl", "good.jsonl", cwd=files, code=2)
    assert "give their benchmark with --bench" in result.stderr
    result = run_eva("eval", "compare", "nowhere", "good", cwd=files, code=2)
    assert "nowhere is not a run" in result.stderr and result.stdout == ""


def test_iterations_of_a_run_are_compared_with_its_base_and_with_another_run(tiny_run: Path, stage_folder) -> None:
    document = json.loads(run_eva("eval", "compare", str(tiny_run), "--json").stdout)
    comparison_of = {(difference["bench"], difference["policy"]): difference for difference in document["differences"]}
    assert comparison_of.keys() == {(f"lettercraft, {kind}", f"iteration {number}") for kind in ("sampled", "greedy") for number in (0, 1)}
    scores = json.loads((stage_folder("1-eval-score") / "score.json").read_text())
    last = comparison_of["lettercraft, sampled", "iteration 1"]
    assert last["value"] == pytest.approx(scores["sampled_gain"]["value"]) and last["score_b"] == pytest.approx(scores["sampled"]["value"])
    assert all(entry["p_holm"] >= entry["p_value"] for entry in comparison_of.values())
    document = json.loads(run_eva("eval", "compare", str(tiny_run), str(tiny_run), "--json").stdout)
    assert len(document["differences"]) == 6
    assert all(
        (difference["value"], difference["improvement"], difference["p_holm"]) == (0, 0.5, 1) for difference in document["differences"]
    )


def test_the_table_of_a_run_has_a_row_per_benchmark_and_policy(tiny_run: Path) -> None:
    document = json.loads(run_eva("eval", "table", str(tiny_run), "--json").stdout)
    sampled_results = [result for result in document["results"] if result["benchmark"] == "lettercraft, sampled reward"]
    assert [entry["policy"] for entry in sampled_results] == ["base", "iteration 0", "iteration 1"]
    assert all(entry["low"] <= entry["score"] <= entry["high"] and entry["questions"] == 24 for entry in sampled_results)
    rows = list(csv.DictReader(io.StringIO(run_eva("eval", "table", str(tiny_run), "--csv").stdout)))
    assert [float(row["score"]) for row in rows[:3]] == [entry["score"] for entry in sampled_results]
