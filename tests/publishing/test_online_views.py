"""What shows a run shows an online run too, from the tables of its intervals."""

import json
from pathlib import Path

import pytest

from eva_stages.core.errors import ConfigError
from eva_stages.core.run_folder import Run
from eva_stages.publishing.cards import dataset_card, model_card
from eva_stages.publishing.contents import Selection, repositories
from eva_stages.publishing.privacy import Privacy
from eva_stages.publishing.report.online_section import online
from eva_stages.publishing.story import story_of
from eva_stages.views.history import History, read_history
from eva_stages.views.prompt_lineage import Lineage
from eva_stages.views.run_summary import summary
from eva_stages.views.selection_records import selection_record
from tests.conftest import run_eva
from tests.online_folder import FATES, SEEDS, STEPS, children, write_online_run


@pytest.fixture(scope="module")
def online_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_online_run(tmp_path_factory.mktemp("runs") / "online")


@pytest.fixture(scope="module")
def history(online_run: Path) -> History:
    return read_history(Run(online_run))


def test_the_prompt_set_of_an_interval_is_what_it_trained_on(history: History) -> None:
    assert {iteration: artifact.stage for iteration, artifact in history.prompt_sets.items()} == {0: "mix", 1: "mix"}
    assert [history.size(history.prompt_sets[iteration]) for iteration in (0, 1)] == [12, 2 * STEPS + 2]


def test_the_summary_of_a_run_has_the_figures_of_every_interval(history: History, online_run: Path) -> None:
    warm_up, interval = (entry["online"] for entry in summary(history)["iterations"])
    assert warm_up["steps"] == STEPS and warm_up["buffer_share"] == 0 and warm_up["evolutions"] is None
    assert (interval["uses"], interval["buffer_share"], interval["evolved_share"]) == (12, pytest.approx(1 / 3), pytest.approx(1 / 6))
    assert (interval["drawn"], interval["evolutions"], interval["inserted"], interval["late"]) == (4, 24, 8, 4)
    assert all(entry["mean_reward"] is not None for entry in summary(history)["iterations"])


def test_the_lineage_of_an_evolved_prompt_reaches_its_seed_and_has_every_use(history: History) -> None:
    child = children(SEEDS[0])[1]
    document = Lineage(history).trace(child["prompt_id"])
    assert document["reaches_seed"] and [step["generation"] for step in document["lineage"]] == [0, 1]
    seed, step = document["lineage"]
    assert step["fate"] == "trained on from iteration 1 on"
    assert [(use["iteration"], use["step"], use["origin"]) for use in step["uses"]] == [(1, 8, "buffer")]
    assert [use["step"] for use in seed["uses"]] == [1, 5, 5, 6]
    assert [entry["iteration"] for entry in seed["checkpoints"]] == [0, 1]
    assert seed["informativeness"][1]["selected"]


def test_the_fate_of_every_evolution_is_shown(history: History) -> None:
    (root,) = [Lineage(history).tree(SEEDS[0]["prompt_id"])["tree"]]
    fates = [child["fate"] for child in root["children"][: len(FATES)]]
    assert fates[2:] == [
        "left out by the gate: answerable",
        "left out: near duplicate",
        "left out: a duplicate",
        "left out: the evolver's reply came too late",
    ]


def test_status_and_lineage_are_printed(online_run: Path) -> None:
    document = json.loads(run_eva("status", str(online_run), "--json").stdout)
    assert {entry["state"] for entry in document["stages"]} == {"done"}
    text = run_eva("lineage", str(online_run), children(SEEDS[0])[0]["prompt_id"]).stdout
    assert "step 7, drawn from the buffer" in text


def test_an_audit_scores_children_by_their_first_use_against_the_use_that_they_were_evolved_from(history: History) -> None:
    record = selection_record(history, 1)
    assert len(record.candidates.ids) == 3 * STEPS
    assert record.children.ids.to_pylist() == [children(SEEDS[0])[index]["prompt_id"] for index in (0, 1, 0, 1)]
    assert [record.candidates.ids[int(row)].as_py() for row in record.parents] == [SEEDS[0]["prompt_id"]] * 4
    assert len(set(record.parents.tolist())) == 2  # two uses of the seed prompt
    with pytest.raises(ConfigError, match="iteration 0 cannot be audited"):
        selection_record(history, 0)


def test_the_report_shows_what_steps_trained_on_and_what_became_of_the_evolutions(history: History) -> None:
    section = online(history)
    assert section is not None
    assert [plot.name for plot in section.plots] == [
        "online-shares",
        "online-reward",
        "online-score",
        "online-fates",
        "buffer-origins",
        "buffer-scores",
    ]
    intervals, evolutions = section.tables
    assert [row[:3] for row in intervals.rows] == [[0, STEPS, 12], [1, STEPS, 12]]
    assert evolutions.rows == [[1, 4, 24, 8, 4, 0]]


def test_other_runs_have_no_such_section(tmp_path: Path) -> None:
    assert online(History(tmp_path, (), ())) is None


def test_the_cards_say_that_prompts_evolved_within_training(history: History) -> None:
    story = story_of(history, "me", Privacy(history.root))
    card = model_card(story, story.model(1))
    assert "It was trained online" in card and "`uses-1`" in card and "| mode | online |" in card
    assert "one training (mode online)" in dataset_card(story, list(story.artifacts))


def test_neither_state_nor_journal_of_a_training_is_pushed(history: History, tmp_path: Path) -> None:
    story = story_of(history, "me", Privacy(history.root))
    repository_list = repositories(story, Selection(), tmp_path / "report.html", {}, Privacy(history.root), tmp_path)
    paths = {file.path for repository in repository_list if repository.kind == "model" for file in repository.files}
    assert "training_log.json" in paths and not any("/" in path for path in paths)
