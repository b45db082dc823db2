"""`eva audit` of planted worlds, in which it is known whether selection can work, and of runs that cannot be audited."""

import io
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from scipy import stats

from benchmarks.synthetic_run import SyntheticRun
from eva_stages.core.errors import ConfigError
from eva_stages.core.rows import SCHEMAS
from eva_stages.core.run_folder import Run
from eva_stages.core.study_record import StudyRun
from eva_stages.core.tables import FILE
from eva_stages.creator.informativeness import reward_gap, reward_variance
from eva_stages.publishing.report.audit_section import audit_section, study_audit_section
from eva_stages.views.audit_document import FIGURES, FIGURES_OF_ITERATIONS, audit, figure_samples
from eva_stages.views.audit_tables import audit_view
from eva_stages.views.history import History, read_history
from eva_stages.views.selection_records import selection_record
from eva_stages.views.study_audit import study_audit
from eva_stages.views.study_runs import RunResult
from tests.conftest import run_eva


@dataclass
class PlantedRun(SyntheticRun):
    """Rewards of 0 and 1. Its seed decides whether a prompt is learnable (`heritable`), or each prompt is drawn separately."""

    heritable: bool = True

    def _reward(self, stage: str, iteration: int, prompts: pa.Table, responses: str) -> tuple[np.ndarray, str]:
        names = prompts["root_id" if self.heritable else "prompt_id"].to_pylist()
        success = np.array([0.5 if int(name[:8], 16) % 2 else 0.97 for name in names])
        matrix = (self.rng.uniform(size=(len(names), self.responses)) < success[:, None]).astype(float)
        columns = [prompts["prompt_id"], pa.array(matrix.tolist()), pa.array([[None] * self.responses] * len(names), pa.list_(pa.string()))]
        return matrix, self._make(stage, iteration, pa.table(columns, schema=SCHEMAS["rewards"]), {"responses": responses})


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, History]:
    folder = tmp_path_factory.mktemp("worlds")
    return {
        heritable: read_history(Run(PlantedRun(folder / f"{heritable}", prompts=600, iterations=2, words=4, heritable=heritable).write()))
        for heritable in (True, False)
    }


def test_it_warns_where_informativeness_is_not_heritable(worlds: dict[bool, History]):
    document = audit(worlds[False])
    assert document["heritability"] == "below"
    assert document["warnings"] == [document["verdict"]]
    assert "there is nothing for selection to act on" in document["verdict"]
    assert "a run with creator.metric=uniform, without novelty and archive, measures it over all candidates" in document["verdict"]
    assert document["notes"][0].startswith("To raise it: ")
    assert document["metrics"]["reward_gap"]["siblings"]["high"] < 0.1


def test_it_does_not_warn_where_informativeness_is_heritable(worlds: dict[bool, History]):
    document = audit(worlds[True])
    assert document["heritability"] == "fine"
    assert document["warnings"] == []
    assert document["verdict"].startswith("Selection can work here")
    figures = document["metrics"]["reward_variance"]
    assert figures["siblings"]["low"] > 0.1
    assert figures["siblings_corrected"]["high"] > 0.9  # what is heritable, is so completely
    assert figures["parent_child"]["low"] > 0.1
    assert figures["lift"]["low"] > 0  # the synthetic selection is uniform, and gap the weight that is assumed: both are positive
    assert 0.3 < document["learnable"]["value"] < 0.7


def test_every_figure_has_an_interval_and_a_number(worlds: dict[bool, History]):
    document = audit(worlds[True])
    assert document["iteration"] == 1
    assert [line["iteration"] for line in document["iterations"]] == [1, 2]
    assert document["families"] <= 150
    assert document["children"] == 480
    for figures in document["metrics"].values():
        assert list(figures) == list(FIGURES)
        for figure in figures.values():
            assert figure is None or (figure["low"] <= figure["value"] <= figure["high"] and figure["n"] > 0)
    assert "uniform" not in document["metrics"]
    assert document["metrics"]["reward_gap"]["gain"] is not None
    assert document["metrics"]["reward_gap"]["influence"] is None
    assert any("--influence" in note for note in document["notes"])


def test_the_last_iteration_has_no_gain_yet(worlds: dict[bool, History]):
    document = audit(worlds[True], 2)
    assert document["metrics"]["reward_gap"]["gain"] is None
    assert any(note.startswith("No gain") for note in document["notes"])


def test_the_line_of_an_iteration_is_from_the_audit_of_that_iteration(worlds: dict[bool, History]):
    document, audit_of_second = audit(worlds[True]), audit(worlds[True], 2)
    assert document["iterations"] == audit_of_second["iterations"]
    for audit_of_iteration, line in zip((document, audit_of_second), document["iterations"], strict=True):
        figures = audit_of_iteration["metrics"]["reward_gap"]
        assert {name: figures[name] for name in FIGURES_OF_ITERATIONS}.items() <= line.items()
        assert line["learnable"].items() <= audit_of_iteration["learnable"].items()


def test_the_command_works_on_a_copy(worlds: dict[bool, History], tmp_path: Path):
    shutil.copytree(worlds[False].root, tmp_path / "copy")
    document = json.loads(run_eva("audit", "copy", "--json", "--iteration", "2", cwd=tmp_path).stdout)
    assert document["iteration"] == 2
    error = run_eva("audit", "copy", "--iteration", "7", cwd=tmp_path, code=2).stderr
    assert "iteration 7 cannot be audited" in error
    assert "the recipe's last iteration is 2. Iterations that can be audited: 1, 2" in " ".join(error.split())


def test_the_tables_fit_80_columns_and_no_number_wraps(worlds: dict[bool, History]):
    text = io.StringIO()
    Console(width=80, file=text).print(audit_view(audit(worlds[True])))
    lines = text.getvalue().splitlines()
    assert lines[0].startswith("Selection can work here")
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("best - second  ") and line.rstrip()[-1] == "]" for line in lines) == 2


def test_a_report_has_the_audit_or_says_why_not(worlds: dict[bool, History], tmp_path: Path):
    section = audit_section(worlds[False])
    assert section.lead[0].startswith("Selection cannot work here")
    assert len(section.tables) == 3
    base_round = read_history(Run(SyntheticRun(tmp_path / "base", prompts=8, iterations=0, words=4).write()))
    (reason,) = audit_section(base_round).missing
    assert "no iteration that evolves prompts" in reason


def test_the_arms_of_a_study_are_audited_over_their_seeds(worlds: dict[bool, History], tmp_path: Path):
    runs = []
    for seed in (1, 2, 3):
        for heritable, arm in ((False, "mutating"), (True, "inheriting")):
            rng = np.random.default_rng(seed)
            root = PlantedRun(tmp_path / arm / str(seed), prompts=300, iterations=1, words=4, rng=rng, heritable=heritable).write()
            runs.append(RunResult(StudyRun(arm=arm, seed=seed, folder=f"{arm}/{seed}"), "done", history=read_history(Run(root))))
        runs.append(RunResult(StudyRun(arm="unstarted", seed=seed, folder=f"unstarted/{seed}"), "missing"))
    entries = study_audit(["mutating", "inheriting", "unstarted"], runs)
    assert [entry["heritability"] for entry in entries] == ["below", "fine", "unknown"]
    siblings = entries[1]["figures"]["siblings"]
    values = [
        audit(read_history(Run(tmp_path / "inheriting" / str(seed))))["metrics"]["reward_gap"]["siblings"]["value"] for seed in (1, 2, 3)
    ]
    interval = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert siblings == pytest.approx({"value": np.mean(values), "low": interval[0], "high": interval[1], "n": 3})
    assert entries[2]["reasons"] == ["seeds 1, 2, 3: there is no run that can be read"]
    (entry_of_one_seed,) = study_audit(["inheriting"], runs[1:2])
    assert entry_of_one_seed["reasons"][0].startswith("seed 1: no other run can be audited")
    section = study_audit_section(entries)
    assert section.lead[0].startswith("Selection cannot work in mutating: ")
    assert section.lead[1].startswith("Selection can work in inheriting: ")
    assert [row[0] for row in section.tables[0].rows] == ["mutating", "inheriting"]
    assert section.missing[0].startswith("unstarted: seeds 1, 2, 3: ")


def test_a_study_of_one_seed_says_that_it_needs_two(worlds: dict[bool, History]):
    run = RunResult(StudyRun(arm="only", seed=1, folder="only/1"), "done", history=worlds[True])
    (sentence,) = study_audit_section(study_audit(["only"], [run])).lead
    assert sentence.startswith("It is not known whether selection can work in only: ")
    assert "of two seeds or more" in sentence


def test_rewards_that_compare_responses_have_no_halves(worlds: dict[bool, History]):
    record = selection_record(worlds[True], 1)
    assert record.training is not None
    prompts, new_means = record.training
    changes = {
        "candidates": replace(record.candidates, are_relative=True),
        "children": replace(record.children, are_relative=True),
        "training": (replace(prompts, are_relative=True), new_means),
    }
    samples = figure_samples(replace(record, **changes), reward_variance, None)
    assert samples is not None
    assert [name for name, sample in samples.items() if sample is None] == ["reliability", "siblings_corrected", "influence", "gain"]


def test_drawing_by_equal_weights_has_no_lift(worlds: dict[bool, History]):
    record = selection_record(worlds[True], 1)
    gaps = reward_gap(record.candidates.rewards)
    samples = figure_samples(replace(record, inclusion=np.where(gaps > 0, 0.5, 0.0)), reward_gap, None)
    assert samples is not None
    assert samples["lift"] is None


def test_weights_of_very_different_sizes_have_probabilities(worlds: dict[bool, History], tmp_path: Path):
    root = shutil.copytree(worlds[True].root, tmp_path / "copy")
    (path,) = (root / "stages").glob(f"1-inform-*/*/{FILE}")
    table = pq.read_table(path)
    weights = pa.array([1e-120, *np.linspace(0.1, 1, len(table) - 1)])
    pq.write_table(table.set_column(table.column_names.index("weight"), "weight", weights), path)
    inclusion = selection_record(read_history(Run(root)), 1).inclusion
    (selected_file,) = (root / "stages").glob(f"1-select-*/*/{FILE}")
    assert inclusion is not None
    assert inclusion.sum() == pytest.approx(pq.read_metadata(selected_file).num_rows)


def test_three_responses_are_too_few_for_halves(tmp_path: Path):
    document = audit(read_history(Run(SyntheticRun(tmp_path / "made", prompts=60, responses=3, iterations=1, words=4).write())))
    figures = document["metrics"]["reward_gap"]
    assert figures["reliability"] is None
    assert figures["siblings"] is not None
    assert any(note.startswith("No reliability: 3 responses") for note in document["notes"])


def test_runs_without_evolved_prompts_or_rewards_are_refused(tmp_path: Path):
    root = SyntheticRun(tmp_path / "made", prompts=40, iterations=1, words=4).write()
    recipe = root / "recipe.yaml"
    recipe.write_text("name: made\ncreator: {control: longer}\n")
    for folder in (root / "stages").glob("1-evolve-*"):
        shutil.rmtree(folder)
    with pytest.raises(ConfigError, match=r"creator.control is longer, so no prompt is evolved"):
        audit(read_history(Run(root)))
    recipe.write_text("name: made\n")
    with pytest.raises(ConfigError, match=r"1-evolve is not complete; run it first"):
        audit(read_history(Run(root)))


def test_the_recipes_metric_is_judged_if_it_depends_on_rewards(worlds: dict[bool, History], tmp_path: Path):
    root = shutil.copytree(worlds[True].root, tmp_path / "copy")
    for metric, judged_metric in (("reward_variance", "reward_variance"), ("uniform", "reward_gap")):
        (root / "recipe.yaml").write_text(f"name: made\ncreator: {{metric: {metric}, selection: {{kind: greedy}}}}\n")
        document = audit(read_history(Run(root)))
        assert (document["metric"], document["judged_metric"]) == (metric, judged_metric)
        assert judged_metric in document["verdict"]
        assert document["metrics"]["reward_gap"]["lift"] is None
        assert any("greedy" in note for note in document["notes"])
