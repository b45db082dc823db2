"""The document of studies with planted scores, and everything that is written from it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from cli.shared import existing_run
from eva_stages.core.errors import ConfigError
from eva_stages.core.run_folder import Run
from eva_stages.core.study_record import Budget, read_study, write_study
from eva_stages.publishing.study_results import write_results
from eva_stages.views.history import read_history
from eva_stages.views.run_list import run_list
from eva_stages.views.study_document import study_document, without_times
from eva_stages.views.study_runs import CurvePoint, score_at, tokens_to_reach
from eva_stages.views.study_tables import study_csv, study_tables
from tests.browser import CHROMIUM, browser
from tests.study_folder import TOKENS, plant_study, planted_curves

CURVE = (CurvePoint("base", 0, 0.1), CurvePoint("iteration 0", 1000, 0.3), CurvePoint("iteration 1", 3000, 0.2))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three arms, six seeds: b is .1 below a; one run of c was not started and one failed."""
    curves: dict = {arm: planted_curves({arm: 0.0}, 6, np.random.default_rng(0), rounds=2)[arm] for arm in "abc"}
    for seed, scores in curves["b"].items():
        curves["b"][seed] = [*scores[:2], scores[2] - 0.1 - 0.001 * seed]
    curves["c"][3], curves["c"][5] = None, curves["c"][5][:2]
    return plant_study(tmp_path_factory.mktemp("studies") / "planted", curves, failed_runs=[("c", 5)], paper="a is better")


def test_a_clear_difference_is_an_effect_with_its_interval(study: Path) -> None:
    document = study_document(study)
    contrast = document["contrasts"][0]
    assert contrast["verdict"] == "not decidable"  # 2 / 2^6 is above .05 / 2
    assert (
        contrast["mean"] == pytest.approx(0.1035) and contrast["low"] == pytest.approx(0.101) and contrast["high"] == pytest.approx(0.106)
    )
    assert contrast["p_value"] == 2 / 2**6 and contrast["p_holm"] == 4 / 2**6
    assert "7 are needed" in contrast["sentence"] and document["answer"][0] == contrast["sentence"]
    assert any("At least 7 seeds are needed" in note for note in document["notes"])
    record = read_study(study)
    write_study(study, record.model_copy(update={"contrasts": (("a", "b"),)}))
    only_contrast = study_document(study)["contrasts"][0]
    write_study(study, record)
    assert only_contrast["verdict"] == "effect" and only_contrast["sentence"].startswith("Effect found: a scores 0.1035 more than b")


def test_missing_and_failed_runs_stay_visible_and_leave_their_contrast_undecided(study: Path) -> None:
    document = study_document(study)
    contrast = document["contrasts"][1]
    assert contrast["verdict"] == "not decided" and contrast["mean"] is contrast["p_value"] is contrast["p_holm"] is None
    assert contrast["missing"] == [{"arm": "c", "seed": 3, "state": "missing"}, {"arm": "c", "seed": 5, "state": "failed"}]
    assert len(contrast["differences"]) == 4
    states = {(entry["arm"], entry["seed"]): (entry["state"], entry["cause"]) for entry in document["runs"] if entry["state"] != "done"}
    assert states == {("c", 3): ("missing", "it was not started"), ("c", 5): ("failed", "1-creator-respond: the disk is full")}
    assert "c seed 5 (failed)" in contrast["sentence"]
    assert document["answer"][1].startswith("Nothing can be significant with 6 seeds and 2 contrasts")
    rows = study_csv(document).splitlines()
    assert "c,3,,,,missing" in rows and len(rows) == 1 + 16 * 3 + 2 + 1


def test_generated_tokens_leave_evaluation_out_and_shared_stages_cost_once(study: Path) -> None:
    document = study_document(study)
    run = document["runs"][0]
    evolved_round = TOKENS["creator-respond"] + TOKENS["evolve"] + TOKENS["respond"]
    assert [point["generated_tokens"] for point in run["curve"]] == [0, TOKENS["respond"], TOKENS["respond"] + evolved_round]
    assert document["arms"][0]["cost"]["stages"] == 1 + 6 * (run["cost"]["stages"] - 1)
    assert document["cost"]["stages"] < sum(arm["cost"]["stages"] for arm in document["arms"])


def test_the_table_fits_a_terminal_and_the_document_is_the_same_each_time(study: Path) -> None:
    document = study_document(study)
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(study_tables(document))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80 and text.startswith("Does a beat b?") and "not decided" in text
    assert json.dumps(document) == json.dumps(study_document(study))
    assert "hours" in json.dumps(document) and "hours" not in json.dumps(without_times(document))


def test_a_token_budget_interpolates_each_run_on_its_own_curve(study: Path) -> None:
    record = read_study(study)
    tokens = TOKENS["respond"] + 800.0
    write_study(study, record.model_copy(update={"budget": Budget(generated_tokens=tokens, iterations=8)}))
    document = study_document(study)
    run = document["runs"][0]
    write_study(study, record.model_copy(update={"budget": Budget(generated_tokens=1e6)}))
    short_run = study_document(study)["runs"][0]
    write_study(study, record)
    first_score, last_score = (point["score"] for point in run["curve"][1:])
    assert run["score"] == pytest.approx(first_score + 0.5 * (last_score - first_score)) and run["generated_tokens"] == tokens
    assert f"a,1,budget,{tokens},{run['score']},done" in study_csv(document).splitlines()
    assert any("lettercraft.exact at 1,800 generated tokens" in note for note in document["notes"])
    assert short_run["state"] == "unfinished" and "ended after 2,600 of 1,000,000 generated tokens" in short_run["cause"]


def test_a_run_whose_score_is_not_a_number_is_not_done(tmp_path: Path) -> None:
    study = plant_study(tmp_path / "unscored", {"a": {1: [0.1, float("nan")]}, "b": {1: [0.1, 0.2]}})
    document = study_document(study)
    run = document["runs"][0]
    assert document["contrasts"][0]["verdict"] == "not decided" and run["state"] == "unfinished"
    assert "the policy that is compared has no score lettercraft.exact" in run["cause"]


def test_an_unknown_measure_is_an_error_that_lists_the_known_ones(study: Path) -> None:
    record = read_study(study)
    write_study(study, record.model_copy(update={"measure": "lettercraft.sampled"}))
    with pytest.raises(ConfigError, match=r"lettercraft\.exact"):
        study_document(study)
    write_study(study, record)


def test_curves_are_linear_between_their_points() -> None:
    assert score_at(CURVE, 500) == pytest.approx(0.2) and score_at(CURVE, 3000) == pytest.approx(0.2)
    assert score_at(CURVE, 3001) is None and score_at((), 1) is None
    assert tokens_to_reach(CURVE, 0.25) == pytest.approx(750) and tokens_to_reach(CURVE, 0.05) == 0
    assert tokens_to_reach(CURVE, 0.31) is None


def test_results_are_files_without_a_time_of_rendering(study: Path) -> None:
    document = write_results(study)
    texts = {name: (study / name).read_bytes() for name in ("results.json", "results.csv", "report.html")}
    assert json.loads(texts["results.json"]) == json.loads(json.dumps(document))
    write_results(study)
    assert texts == {name: (study / name).read_bytes() for name in texts}
    html = texts["report.html"].decode()
    body = html[html.index("<body>") :]
    assert body.index("a scores 0.1035 more than b") < body.index("<nav") < body.index("study-contrasts")
    sections = re.findall(r'<section id="([\w-]+)"', html)
    assert sections == ["contrasts", "curves", "arms", "audit", "costs", "missing", "paper", "rerun"]
    assert "not decided" in html and "the disk is full" in html and "a is better" in html


def test_texts_of_a_study_cannot_break_its_report(study: Path) -> None:
    record = read_study(study)
    hostile_text = "<script>document.title='owned'</script></section><h1 id='owned'>"
    write_study(study, record.model_copy(update={"question": hostile_text, "paper": hostile_text, "command": hostile_text}))
    write_results(study)
    write_study(study, record)
    html = (study / "report.html").read_text()
    assert "<script" not in html and "id='owned'" not in html and html.count("&lt;script&gt;") >= 3


@pytest.mark.parametrize("width", [400, 1400])
def test_the_report_fits_the_browser(study: Path, width: int) -> None:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed; on Debian: apt-get install chromium")
    write_results(study)
    url = (study / "report.html").as_uri()
    with browser() as page:
        page.open(url, width)
        assert page.of("Runtime.exceptionThrown", "Log.entryAdded") == []
        assert page.value("document.documentElement.scrollWidth") <= width
        assert page.value("document.querySelector('h1').getBoundingClientRect().bottom") < 500
        assert page.value("document.querySelectorAll('figure svg path').length") > 20


def test_arms_that_end_before_they_differ_are_reported(study: Path) -> None:
    record = read_study(study)
    runs = tuple(run if run.arm != "b" else run.model_copy(update={"folder": f"a/{run.seed}"}) for run in record.runs)
    write_study(study, record.model_copy(update={"runs": runs}))
    notes = study_document(study)["notes"]
    write_study(study, record)
    assert [note for note in notes if "have the same stages" in note] == [
        "a and b have the same stages with every seed: their difference is 0 whatever b changes; raise the budget"
    ]
    assert "same stages" not in " ".join(study_document(study)["notes"])


def test_runs_of_a_study_are_named_by_study_arm_and_seed(study: Path) -> None:
    assert read_history(Run(study / "a" / "1")).name == "planted/a/1"
    (entry,) = run_list(study)["studies"]
    assert entry["planned_runs"] == 18 and len(entry["runs"]) < 18
    (study / "a" / "1" / "recipe.yaml").touch()
    with pytest.raises(ConfigError, match=r"is a study; name one of its \d+ runs, as in .*planted/a/1\."):
        existing_run(str(study))


def test_a_measure_that_no_incomplete_run_has_yet_is_no_error(tmp_path: Path) -> None:
    folder = plant_study(tmp_path / "early", {"a": {1: [0.1, 0.2]}, "b": {1: [0.1, 0.2]}}, iterations=3)
    write_study(folder, read_study(folder).model_copy(update={"measure": "lettercraft.sampled"}))
    assert [run["state"] for run in study_document(folder)["runs"]] == ["unfinished"] * 2
