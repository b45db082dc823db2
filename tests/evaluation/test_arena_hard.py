import csv
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from eva_stages.core.errors import ConfigError
from eva_stages.evaluation.answers import STYLE, Answer, by_model, parse_answer, style_counts, token_length
from eva_stages.evaluation.arena_hard import (
    BASELINES,
    battle,
    battle_file,
    battles_of,
    game_battles,
    judge_text,
    parse_battle,
    parse_judgment,
    second_attempt_v01,
    verdict_v01,
    verdict_v2,
)
from eva_stages.evaluation.arena_style import standardised_features, style_control
from eva_stages.evaluation.bradley_terry import rate_of, rating_of, win_rate_intervals, win_rates
from eva_stages.evaluation.file_scores import score_files
from eva_stages.evaluation.judgment_files import parse_records, read_records
from tests.conftest import EVALDATA
from tests.evaluation.official import judged_v2, judgment_row, needs_evaldata, official_files, official_rows, write_lines

BASELINE = BASELINES["arena-hard-v0.1"]
RAW = official_files("arenahard", "judgments_raw")
CHAIN = EVALDATA / "arenahard" / "full_chain"


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        ("My final verdict is: [[A>>B]]", "A>>B", "A>>B"),
        ("[[A=B]] ... so [[A=B]]", "A=B", "A=B"),
        ("[[A>B]] no, [[B>A]]", None, "B>A"),
        ("[[a>b]]", None, "A>B"),
        ("[A>B]", None, "A>B"),
        ("[B>A] and so [[A>B]], not [B>>A]", "A>B", "A>B"),
        ("<p>verdict: <b>[[B&gt;A]]</b> [[B>A]]</p>", "B>A", "B>A"),
        ("[[A<B]]", "A<B", "A<B"),
        ("[[A>>A]]", "A>>A", "A>>A"),
        ("[[ A>B ]]", None, None),
        ("I won't judge this.", None, None),
        ("", None, None),
        (None, None, None),
    ],
)
def test_a_verdict_is_read_as_each_version_reads_it(text: str | None, old: str | None, new: str | None) -> None:
    assert (verdict_v01(text), verdict_v2(text)) == (old, new)


def test_a_judge_is_asked_again_only_if_it_gave_no_label_at_all() -> None:
    assert second_attempt_v01("thinking ...") and second_attempt_v01(None) and second_attempt_v01("[[a>b]]")
    assert not second_attempt_v01("[[A>B]]") and not second_attempt_v01("[[A>B]] [[B>A]]")


def test_a_strong_verdict_is_three_battles_and_a_meaningless_one_none() -> None:
    assert battle("A>>B", 0, "v0.1") == (0.0, 3) and battle("A>>B", 1, "v0.1") == (1.0, 3)
    assert battle("B>A", 0, "v0.1") == (1.0, 1) and battle("A=B", 1, "v0.1") == (0.5, 1)
    assert [battle(verdict, 0, "v0.1") for verdict in (None, "A<B", "A>>A", "")] == [None] * 4
    assert battle("A<B", 1, "v2.0") == (0.0, 1) and battle("B<<A", 1, "v2.0") == (1.0, 3) and battle("A>>A", 1, "v2.0") is None


def test_a_question_with_one_verdict_counts_in_v01_only() -> None:
    assert game_battles(("B>A", None), "v0.1") == [(1.0, 1)]
    assert game_battles(("B>A", None), "v2.0") == game_battles((None, "B>A"), "v2.0") == game_battles(("A>B",), "v2.0") == []
    assert game_battles(("B>>A", "A=B"), "v2.0") == [(0.5, 1), (1.0, 3)]


def test_raw_judgments_of_2024(tmp_path: Path) -> None:
    rows = [
        judgment_row("m", "q1", "A>>B", "A=B"),
        judgment_row("m", "q2", "B>A", None),
        judgment_row("m", "q3", None, "A<B"),
        judgment_row("n", "q1", None, None),
    ]
    document = score_files("arena-hard", [write_lines(tmp_path / "a.jsonl", rows)])
    first, second = document["models"]
    assert document["version"] == "v0.1" and (first["model"], first["baseline"]) == ("m", BASELINE)
    assert first["score"] == first["win_rate"] == pytest.approx(100 * 1.5 / 5)
    assert (first["n"], first["battles"], first["games"], first["no_verdict"], first["ci_kind"]) == (2, 5, 6, 3, "official")
    assert (first["first_place"], first["consistent"]) == (0.75, 0.0)
    assert second["score"] is None and second["ci"] is None and second["reason"] == "no game has a verdict"


def test_current_judgments_by_category_with_null_games(tmp_path: Path) -> None:
    rows = [judged_v2("m", "u1", "B>A", "A>B"), judged_v2("m", "u2", "A>>B", "B>A"), judged_v2("m", "u3", "B>A", None)]
    rows += [judged_v2("m", "u4", "A=B", "A>>B", "creative_writing"), judged_v2("m", "u5", "A>>A", "A>B")]
    (model,) = score_files("arena-hard", [write_lines(tmp_path / "a.jsonl.gz", rows)])["models"]
    assert model["score"] == pytest.approx(100 * 2 / 6) and model["category"] == "hard_prompt" and model["no_verdict"] == 2
    assert model["categories"]["creative_writing"]["score"] == pytest.approx(100 * 3.5 / 4)
    assert model["categories"]["creative_writing"]["baseline"] == "gemini-2.0-flash-001" and model["baseline"] == "o3-mini-2025-01-31"


def test_a_missing_verdict_is_read_from_the_judges_text(tmp_path: Path) -> None:
    answer = "My answer: [[A>>B]]"
    games = [{"user_prompt": answer, "judgment": "They differ little. [[B>A]]"}, {"user_prompt": answer, "judgment": "No verdict."}]
    (model,) = score_files("arena-hard", [write_lines(tmp_path / "a.jsonl", [{"question_id": "q", "model": "m", "games": games}])])[
        "models"
    ]
    assert (model["score"], model["battles"], model["no_verdict"]) == (100.0, 1, 1)
    current = [{"judgment": {"answer": "so [[a>b]]"}, "prompt": [answer]}, {"judgment": {"answer": "[A=B]"}}]
    (model,) = score_files("arena-hard", [write_lines(tmp_path / "b.jsonl", [{"uid": "q", "model": "m", "games": current}])])["models"]
    assert (model["score"], model["battles"]) == (25.0, 2)


def test_the_baseline_of_battles_may_be_on_either_side(tmp_path: Path) -> None:
    rows = [{"question_id": 0, "model_a": "base", "model_b": "m", "winner": "model_b"}]
    rows += [{"question_id": 1, "model_a": "m", "model_b": "base", "winner": winner} for winner in ("model_b", "tie", "tie (bothbad)")]
    rows += [{"question_id": 1, "model_a": "base", "model_b": "n", "winner": "model_a"}]
    document = score_files("arena-hard", [write_lines(tmp_path / "a.jsonl", rows)])
    assert [(model["model"], model["score"], model["n"]) for model in document["models"]] == [("m", 50.0, 2), ("n", 0.0, 1)]
    assert document["models"][0]["baseline"] == "base"
    rows.append({"question_id": 1, "model_a": "m", "model_b": "n", "winner": "model_a"})
    with pytest.raises(ConfigError, match="no model is in every battle"):
        score_files("arena-hard", [write_lines(tmp_path / "b.jsonl", rows)])


def test_a_pool_with_other_battles_is_fitted_and_its_fit_satisfies_the_likelihood_equations() -> None:
    random = np.random.default_rng(0)
    names, strength = [BASELINE, "m", "n"], np.array([0.0, 0.8, -0.5])
    rows = []
    for question in range(300):
        a, b = random.choice(3, size=2, replace=False)
        rows.append((str(question), names[a], names[b], float(random.random() < 1 / (1 + np.exp(strength[a] - strength[b])))))
    battles, baseline = battle_file(rows)
    rates = win_rates(battles, baseline)
    log_odds = {BASELINE: 0.0} | {name: np.log(rate / (1 - rate)) for name, rate in rates.items()}
    for name in ("m", "n"):
        expected = [1 / (1 + np.exp(log_odds[a] - log_odds[b])) for a, b in zip(battles.a, battles.b, strict=True)]
        signs = (battles.b == name).astype(float) - (battles.a == name)
        assert abs(float(np.sum(signs * (battles.outcome - expected)))) < 1e-3
    low, high = win_rate_intervals(battles, baseline, "v0.1")["m"]
    assert low < rates["m"] < high


def test_ratings_and_rates_are_inverse_and_a_model_that_lost_everything_has_an_interval() -> None:
    rates = np.array([0.01, 0.375, 0.5, 0.99])
    assert rate_of(rating_of(rates)) == pytest.approx(rates)
    battles, baseline = battle_file([(str(number), BASELINE, "m", 0.0) for number in range(10)])
    assert win_rates(battles, baseline) == {"m": 0.0}
    assert win_rate_intervals(battles, baseline, "v0.1")["m"] == pytest.approx((0, 0), abs=1e-6)


def test_judgments_that_cannot_be_scored_are_errors(tmp_path: Path) -> None:
    old, new = judgment_row("m", "q", "A>B", "A>B"), judged_v2("m", "u", "A>B", "A>B")
    battles = {"question_id": "q", "model_a": BASELINE, "model_b": "m", "winner": "model_c"}
    with pytest.raises(ConfigError, match="score each version separately"):
        score_files("arena-hard", [write_lines(tmp_path / "a.jsonl", [old, new])])
    with pytest.raises(ConfigError, match="count the same games twice"):
        score_files("arena-hard", [write_lines(tmp_path / "b.jsonl", [old, battles])])
    with pytest.raises(ConfigError, match=r"c\.jsonl, line 1: winner is 'model_c'; expected model_a, model_b, tie"):
        score_files("arena-hard", [write_lines(tmp_path / "c.jsonl", [battles])])
    with pytest.raises(ConfigError, match="a game's score is 3; expected a label"):
        score_files("arena-hard", [write_lines(tmp_path / "d.jsonl", [old | {"games": [{"score": 3}]}])])
    with pytest.raises(ConfigError, match="games is not a list of two"):
        score_files("arena-hard", [write_lines(tmp_path / "e.jsonl", [old | {"games": "[]"}])])


# --- style


def test_markdown_is_counted_outside_code_blocks() -> None:
    text = "# Title\n1. one\n- two\n* three\n**bold** and __more__\n```\n# no\n- no\n**no**\n```\n"
    answer = Answer("q", "m", text, {}, False)
    assert style_counts(answer)[1:] == (1, 3, 2)
    assert style_counts(answer)[0] == token_length(answer) > 10
    stored_counts = {"token_len": 7, **dict(zip(STYLE, ({"h1": 1, "h2": 2}, {"ordered": 4}, {"**": 5, "__": 1}), strict=True))}
    assert style_counts(answer._replace(counts=stored_counts)) == (7, 3, 4, 6)


def test_style_features_follow_each_versions_formula() -> None:
    a, b = np.array([[10.0, 1, 0, 2], [20, 0, 4, 0], [10, 0, 0, 0]]), np.array([[30.0, 1, 3, 0], [20, 2, 0, 0], [10, 0, 0, 0]])
    old = (b - a) / (a + b + 1)
    assert standardised_features(a, b, "v0.1") == pytest.approx((old - old.mean(axis=0)) / old.std(axis=0))
    tokens, density_a, density_b = (b[:, :1] - a[:, :1]) / (a[:, :1] + b[:, :1]), a[:, 1:] / (a[:, :1] + 1), b[:, 1:] / (b[:, :1] + 1)
    new = np.hstack([tokens, (density_b - density_a) / (density_b + density_a + 1)])
    assert standardised_features(a, b, "v2.0") == pytest.approx((new - new.mean(axis=0)) / new.std(axis=0, ddof=1))


@pytest.mark.parametrize("version", ["v0.1", "v2.0"])
def test_a_model_that_wins_by_length_alone_loses_its_lead_under_style_control(version) -> None:
    random = np.random.default_rng(1)
    rows, answers = [], []
    for number in range(400):
        length = int(random.integers(50, 400))
        wins = random.random() < 1 / (1 + np.exp(-4 * (length - 150) / (length + 150)))
        rows.append((str(number), BASELINE, "m", float(wins)))
        answers += [Answer(str(number), model, "", _counts(tokens), False) for model, tokens in ((BASELINE, 150), ("m", length))]
    battles, baseline = battle_file(rows)
    raw = win_rates(battles, baseline)["m"]
    official, converged_fits = style_control(battles, baseline, by_model(answers), version)
    assert raw > 0.6 and bool(converged_fits) == (version == "v2.0")
    for fit in (official["m"], *converged_fits.values()):
        assert fit.low <= fit.score <= fit.high
        assert fit.coefficients[0] > 0.5
    assert max(map(abs, (converged_fits or official)["m"].coefficients[1:])) < 0.2


def test_style_control_is_the_fit_of_the_official_design_with_every_battle_twice() -> None:
    random = np.random.default_rng(2)
    names = [BASELINE, "m", "n"]
    answers = [Answer(str(q), name, "", _counts(int(random.integers(20, 300))), False) for q in range(60) for name in names]
    rows = [(str(q), BASELINE, name, float(random.choice([0, 0.5, 1]))) for q in range(60) for name in names[1:]]
    battles, baseline = battle_file(rows)
    fits = style_control(battles, baseline, by_model(answers), "v0.1")[0]
    length = {(answer.question, answer.model): token_length(answer) for answer in answers}
    a, b = (np.array([length[q, name] for q, name in zip(battles.question, side, strict=True)], float) for side in battles[1:3])
    ratio = (a - b) / (a + b + 1)
    design = np.zeros((len(rows), 4))
    for column, name in enumerate(names):
        design[:, column] = np.log(10) * ((battles.a == name).astype(float) - (battles.b == name))
    design[:, 3] = (ratio - ratio.mean()) / ratio.std()
    labels = np.concatenate([battles.outcome <= 0.5, battles.outcome < 0.5])  # a tie is a win in one copy and a loss in the other
    fit = LogisticRegression(fit_intercept=False).fit(np.vstack([design, design]), labels).coef_[0]
    for column, name in enumerate(names[1:], 1):
        assert fits[name].score == pytest.approx(1 / (1 + 10 ** (fit[0] - fit[column])), abs=1e-5)
        assert fits[name].coefficients[0] == pytest.approx(fit[3], abs=1e-4)


def _counts(tokens: int) -> dict[str, object]:
    return {"token_len": tokens, **dict.fromkeys(STYLE, 0)}


# --- official files


@needs_evaldata
def test_published_scores_of_the_official_battles() -> None:
    path = EVALDATA / "arenahard" / "battles" / "official_gpt-4-0613_gpt-3.5-turbo-0125.battles.jsonl.gz"
    board = {row["model"]: row for row in csv.DictReader(_leaderboard().open())}
    document = score_files("arena-hard", [path], [*official_files("arenahard", "model_answer")])
    assert {model["model"] for model in document["models"]} == {"gpt-4-0613", "gpt-3.5-turbo-0125"}
    for model in document["models"]:
        published_row = board[model["model"]]
        assert model["score"] == pytest.approx(float(published_row["score"]), abs=0.005)
        # these battles are two models of the official pool, so their interval is another draw of the same width
        assert model["ci"] == pytest.approx([float(published_row["rating_q025"]), float(published_row["rating_q975"])], abs=1)
    assert document["models"][1]["avg_tokens"] == float(board["gpt-3.5-turbo-0125"]["avg_tokens"]) == 329


@needs_evaldata
def test_every_bootstrap_round_of_the_full_chain_is_the_official_one() -> None:
    (path,) = CHAIN.glob("*.battles.jsonl.gz")
    (rounds,) = CHAIN.glob("*.bootstrapping_results.jsonl.gz")
    official = official_rows(*rounds.parts[-3:])
    document = score_files("arena-hard", [path])
    assert len(official) == 100 and len(document["models"]) == 8
    for model in document["models"]:
        ratings = np.array([round_ratings[model["model"]] - round_ratings[BASELINE] for round_ratings in official])
        low, high = rate_of(np.percentile(ratings, [2.5, 97.5]))
        assert model["ci"] == pytest.approx([100 * low, 100 * high], abs=0.01)
    published_rates = {"gpt-4-0613": 37.9, "gpt-3.5-turbo-0125": 23.34}
    scores = {model["model"]: model["score"] for model in document["models"]}
    assert [scores[name] for name in published_rates] == pytest.approx(list(published_rates.values()), abs=0.005)


@needs_evaldata
def test_the_judges_texts_have_the_stored_verdicts_and_their_score_is_that_of_the_readme() -> None:
    rows = [row for path in RAW for row in official_rows(*path.parts[-3:])]
    games = [(game["score"], game["judgment"]) for row in rows for game in row["games"]]
    assert len(games) == 164 and all(verdict_v01(judge_text(text)) == stored_verdict for stored_verdict, text in games)
    worth = {"A>>B": (1, 3), "A>B": (1, 1), "A=B": (0.5, 1), "B>A": (0, 1), "B>>A": (0, 3)}
    won_battles = drawn_battles = 0.0
    for row in rows:
        for number, game in enumerate(row["games"]):
            if game["score"] in worth:
                outcome, weight = worth[game["score"]]
                won_battles, drawn_battles = won_battles + weight * (outcome if number else 1 - outcome), drawn_battles + weight
    (model,) = score_files("arena-hard", RAW)["models"]
    assert model["score"] == pytest.approx(100 * won_battles / drawn_battles, abs=1e-9) and model["no_verdict"] == 2


@needs_evaldata
def test_the_same_judgments_score_the_same_as_battles(tmp_path: Path) -> None:
    judgments = parse_records(read_records(RAW, ("Arena-Hard raw judgments",), "arena-hard"), parse_judgment)
    battles = battles_of(judgments)
    words = {0.0: "model_a", 0.5: "tie", 1.0: "model_b"}
    rows = [
        {"question_id": q, "model_a": a, "model_b": b, "winner": words[float(outcome)]} for q, a, b, outcome in zip(*battles, strict=True)
    ]
    path = write_lines(tmp_path / "battles.jsonl", rows)
    kinds = ("Arena-Hard battles",)
    assert len(parse_records(read_records([path], kinds, "arena-hard"), parse_battle)) == len(battles.outcome)
    (from_battles,), (raw,) = score_files("arena-hard", [path])["models"], score_files("arena-hard", RAW)["models"]
    assert [from_battles[key] for key in ("score", "ci", "battles", "n")] == [raw[key] for key in ("score", "ci", "battles", "n")]


@needs_evaldata
def test_token_lengths_are_the_stored_ones_and_style_control_is_near_the_raw_score() -> None:
    files = official_files("arenahard", "model_answer")
    answers = parse_records(read_records(files, ("FastChat or Arena-Hard answers",), "arena-hard"), parse_answer)
    assert len(answers) == 1000
    assert all(token_length(answer._replace(counts={})) == answer.counts["token_len"] for answer in answers)
    (path,) = official_files("arenahard", "battles")
    kinds = ("Arena-Hard battles",)
    battles, baseline = battle_file(parse_records(read_records([path], kinds, "arena-hard"), parse_battle))
    pool = battles.where(battles.b == "gpt-3.5-turbo-0125")
    fit = style_control(pool, baseline, by_model(answers), "v0.1")[0]["gpt-3.5-turbo-0125"]
    assert 0.18 < fit.low < fit.score < fit.high < 0.28


def _leaderboard() -> Path:
    (path,) = official_files("arenahard", "leaderboards")
    return path
