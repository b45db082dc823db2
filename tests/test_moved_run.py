"""Every view of a run needs only its folder: it may be moved, and the policy and the prompts may be gone."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from eva_stages.core.run_folder import Run
from eva_stages.core.tables import read_table
from eva_stages.creator.prompt_loading import seed_instructions
from eva_stages.publishing.contents import Selection
from eva_stages.publishing.pushing import push_run
from eva_stages.publishing.report_files import make_report
from eva_stages.views.comparison import compare, compare_iterations, run_values
from eva_stages.views.history import History, read_history
from eva_stages.views.prompt_lineage import Lineage
from eva_stages.views.run_scores import run_results
from eva_stages.views.run_status import Watch
from eva_stages.views.run_summary import summary
from tests.conftest import TINY, overrides, run_eva

POLICY = Path(__file__).parents[1] / "eva_stages/lettercraft/base_policy"
PROMPTS = [str(instruction) for instruction in seed_instructions(7, 16)]


def views(run: Path) -> dict[str, Any]:
    """What every command shows of a run, without the run's path."""
    history = read_history(Run(run))
    values = run_values("run", history)
    outcomes, _ = push_run(Run(run), "someone", False, Selection(), True, lambda line: None)
    documents = {
        "status": Watch(Run(run)).document(),
        "table": run_results(summary(history)),
        "compare": compare_iterations(values),
        "compare with itself": compare([values, values]),
        "push": {outcome.repository.name: outcome.changed_paths for outcome in outcomes},
        "lineage": Lineage(history).trace(first_prompt_id(history)),
    }
    return json.loads(json.dumps(documents).replace(str(run), "RUN"))


def first_prompt_id(history: History) -> str:
    return str(read_table(history.prompt_sets[0].content)["prompt_id"][0].as_py())


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run whose inputs were deleted, and what the commands showed before."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(POLICY, home / "policy")
    (home / "policy" / "README.md").write_text("---\nlicense: mit\n---\n")
    (home / "prompts.jsonl").write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    settings = {name: value for name, value in TINY.items() if not name.startswith("prompts.")}
    settings |= {"prompts": {"kind": "file", "path": str(home / "prompts.jsonl")}, "policy.model": str(home / "policy"), "iterations": 0}
    settings |= {"solver.training.batch_size": 2, "solver.training.runtime.micro_batch_size": 2}
    run_eva("run", "quickstart", "--run-dir", str(home / "runs" / "moved"), *overrides(settings))
    documents = views(home / "runs" / "moved")
    moved_folder = tmp_path_factory.mktemp("elsewhere") / "moved"
    shutil.copytree(home / "runs" / "moved", moved_folder)
    shutil.rmtree(home)
    return moved_folder, documents


def test_every_view_is_the_same_after_the_inputs_were_deleted(
    finished_run: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, documents = finished_run
    monkeypatch.chdir(tmp_path)
    assert views(run) == documents
    outcomes, _ = push_run(Run(run), "someone", False, Selection(), True, lambda line: None)
    cards = [file.content for outcome in outcomes for file in outcome.repository.files if file.path == "README.md"]
    assert any(isinstance(card, bytes) and b"license: mit" in card for card in cards)
    reported_run = Path(shutil.copytree(run, tmp_path / "reported"))
    assert make_report([Run(reported_run)]).read_text().count("<section") > 5


def test_a_run_whose_plan_lists_only_folders_is_shown_alike(finished_run: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    run, earlier_documents = finished_run
    old = Path(shutil.copytree(run, tmp_path / "moved"))
    folders = [stage["folder"] for stage in json.loads((old / "stages.json").read_text())]
    (old / "stages.json").write_text(json.dumps(folders))
    assert views(old) == earlier_documents
    (old / "stages.json").unlink()
    documents = views(old)
    assert all(documents[name] == earlier_documents[name] for name in ("table", "compare", "lineage"))
