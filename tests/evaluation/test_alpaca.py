import csv
import json
import random
from pathlib import Path

import pytest

from eva_stages.core.errors import ConfigError
from eva_stages.evaluation.alpaca import HubFiles
from eva_stages.evaluation.file_scores import score_files
from tests.conftest import EVALDATA
from tests.evaluation.official import annotation_row, needs_evaldata, official_files, official_rows, write_lines

ALPACA = EVALDATA / "alpacaeval"
ANNOTATIONS = official_files("alpacaeval", "annotations")
GAMED_FILE = ALPACA / "df_gamed_RECONSTRUCTED.csv.gz"
DIFFICULTY = ALPACA / "recovered_instruction_difficulty.csv"
WEIGHTS = ALPACA / "lc_v1_glm_weights_baseline_gpt4_1106_preview.csv"
NOWHERE = HubFiles()


def test_raw_win_rates_without_the_two_files(tmp_path: Path) -> None:
    rows = [
        annotation_row("m", "one", 2.0),
        annotation_row("m", "two", 1.25, 31),
        annotation_row("m", "three", None),
        annotation_row("m", "four", 0),
    ]
    rows += [annotation_row("n", "one", 1), annotation_row("n", "two", 7)]
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(rows))
    document = score_files("alpaca-eval", [path], hub_files=NOWHERE)
    first, second = document["models"]
    assert first["model"] == "m" and first["win_rate"] == pytest.approx(100 * 1.75 / 3)
    assert first["score"] is None and first["lc_win_rate"] is None and first["ci"] is None and "--gamed" in first["reason"]
    assert first["se"] == pytest.approx(100 * (((5 / 12) ** 2 + (1 / 3) ** 2 + (1 / 12) ** 2) / 2 / 3) ** 0.5)
    assert [first[key] for key in ("n", "wins", "losses", "draws", "unjudged")] == [3, 1, 1, 1, 1]
    assert first["avg_length"] == 15
    assert (second["win_rate"], second["n"], second["unjudged"]) == (0.0, 1, 1)
    difference = document["differences"][0]
    assert (difference["n"], difference["value"]) == (1, -100.0)


def test_the_fit_needs_every_instruction(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "annotations.jsonl", [annotation_row("m", "one", 1.5)])
    gamed_file = tmp_path / "df_gamed.csv"
    gamed_file.write_text("model,index,preference,std_delta_len,instruction_difficulty,not_gamed_baseline\nv,0,0.5,0,0,False\n")
    (model,) = score_files("alpaca-eval", [path], hub_files=HubFiles(gamed_file))["models"]
    assert model["score"] is None and "the fit needs the 805 instructions" in model["reason"]
    gamed_file.write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match=r"df_gamed\.csv has no columns index, instruction_difficulty"):
        score_files("alpaca-eval", [path], hub_files=HubFiles(gamed_file))
    answers = tmp_path / "outputs.json"
    answers.write_text(json.dumps([{"instruction": "one", "output": "yes", "generator": "m"}]))
    with pytest.raises(ConfigError, match="expected a file with all 805 instructions in the official order; found m: 1"):
        score_files("alpaca-eval", [path], [answers], hub_files=NOWHERE)


@needs_evaldata
def test_published_win_rates_of_every_official_file() -> None:
    with (ALPACA / "weighted_alpaca_eval_gpt4_turbo_leaderboard.csv").open() as stream:
        board = {row[""]: row for row in csv.DictReader(stream)}
    document = score_files("alpaca-eval", ANNOTATIONS, hub_files=HubFiles(GAMED_FILE, DIFFICULTY))
    assert len(document["models"]) == len(ANNOTATIONS) == 3
    for model in document["models"]:
        published_row = board[model["model"]]
        assert model["win_rate"] == pytest.approx(float(published_row["win_rate"]), abs=1e-9)
        assert model["se"] == pytest.approx(float(published_row["standard_error"]), abs=1e-9)
        assert model["score"] == model["lc_win_rate"] == pytest.approx(float(published_row["length_controlled_winrate"]), abs=0.2)
        assert model["avg_length"] == int(published_row["avg_length"])
        assert [model[key] for key in ("n", "wins", "losses", "draws")] == [
            int(published_row[key]) for key in ("n_total", "n_wins", "n_wins_base", "n_draws")
        ]
        assert model["ci"][0] < model["score"] < model["ci"][1]
        published_scores = [score for score in document["published"] if score["model"] == model["model"]]
        assert published_scores and published_scores[0]["score"] == pytest.approx(
            float(published_row["length_controlled_winrate"]), abs=1e-9
        )


@needs_evaldata
def test_published_coefficients_give_the_published_length_controlled_win_rates() -> None:
    with (ALPACA / "weighted_alpaca_eval_gpt4_turbo_leaderboard.csv").open() as stream:
        board = {row[""]: float(row["length_controlled_winrate"] or "nan") for row in csv.DictReader(stream)}
    document = score_files("alpaca-eval", ANNOTATIONS, hub_files=HubFiles(None, DIFFICULTY, WEIGHTS))
    for model in document["models"]:
        assert model["score"] == pytest.approx(board[model["model"]], abs=0.02) and model["reason"] is None


@needs_evaldata
def test_a_file_of_responses_gives_shuffled_and_partial_annotations_their_order(tmp_path: Path) -> None:
    rows = official_rows("alpacaeval", "annotations", "vicuna-7b-v1.5.weighted.raw_completion+glm.json.gz")
    random.Random(0).shuffle(rows)
    path = write_lines(tmp_path / "shuffled.jsonl", rows[:700])
    outputs = ALPACA / "model_outputs" / "gpt4_0314.json.gz"
    (model,) = score_files("alpaca-eval", [path], [outputs], hub_files=HubFiles(GAMED_FILE, DIFFICULTY))["models"]
    assert model["n"] == 700 and model["score"] == pytest.approx(7.617, abs=1.0)


@needs_evaldata
def test_preferences_follow_from_the_judges_log_probabilities() -> None:
    from alpaca_eval.completion_parsers import logprob_parser

    checked_rows = 0
    for path in ANNOTATIONS:
        for row in official_rows(*path.parts[-3:]):
            checked_rows += 1
            if row["raw_completion"] is None:  # the same answer twice: no call was made
                assert row["preference"] == 1.5 and row["output_1"] == row["output_2"]
                continue
            (value,) = logprob_parser(row["raw_completion"], numerator_token="m", denominator_tokens=["m", "M"], is_binarize=False)
            is_switched = random.Random("is_switched_outputs" + row["instruction"] + "0").choices([False, True])[0]
            assert (3 - value if is_switched else value) == pytest.approx(row["preference"], abs=1e-6)
    assert checked_rows == 3 * 805


@needs_evaldata
def test_lengths_of_official_outputs_are_the_published_ones(tmp_path: Path) -> None:
    files = official_files("alpacaeval", "model_outputs")
    firsts = [official_rows(*path.parts[-3:])[0] for path in files]
    judgments = write_lines(tmp_path / "some.jsonl", [annotation_row(row["generator"], row["instruction"], 1.5) for row in firsts])
    document = score_files("alpaca-eval", [judgments], files, hub_files=NOWHERE)
    assert {model["model"]: model["avg_length"] for model in document["models"]} == {"gemma-2-9b-it-SimPO": 1833, "gpt4_0314": 1371}
