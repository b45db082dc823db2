"""eva from Python: the same runs, rows and figures as the commands, without a word on the terminal."""

import json
import re
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from eva_stages import api as eva
from eva_stages.api.reporters import Progress
from eva_stages.core.recipe_files import load_recipe
from tests.conftest import TINY, artifact_rows, events, run_eva

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _cache_of_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")


def complete_run(tiny_run: Path, name: str) -> Path:
    """A copy of the tiny run as runs/NAME of the current folder."""
    return Path(shutil.copytree(tiny_run, Path("runs") / name, symlinks=True))


def test_the_notebook_runs(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its recipe is the one of the tiny run, so nothing is computed."""
    monkeypatch.chdir(tmp_path)
    run = complete_run(tiny_run, "notebook")
    recorded_events = events(run)
    cells = json.loads((ROOT / "docs" / "quickstart.ipynb").read_text())["cells"]
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
            assert cell["outputs"] or "import" in "".join(cell["source"])
    assert names["changes"] == TINY and events(run) == recorded_events


def test_the_ten_lines_of_the_readme_run(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recorded_events = events(complete_run(tiny_run, "first"))
    readme, page = (ROOT / "README.md").read_text(), (ROOT / "docs" / "python.md").read_text()
    code = re.findall(r"```python\n(from eva_stages import api.*?)```", page, re.DOTALL)[0]
    assert code in readme and len(code.splitlines()) <= 10
    names: dict[str, object] = {}
    exec(code.replace('{"iterations": 1}', repr(TINY)), names)
    assert str(names["policy"]).startswith(str(tmp_path / "runs" / "first" / "stages" / "1-train"))
    assert events(tmp_path / "runs" / "first") == recorded_events


def test_a_run_from_python_is_the_run_of_the_command(tiny_run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recorded_events = events(tiny_run)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = eva.run(eva.load_recipe("quickstart", TINY), tiny_run)
        table, summary = run.scores(), run.summary()
    assert events(tiny_run) == recorded_events, "nothing is computed again"
    assert capfd.readouterr() == ("", "")
    assert summary == json.loads(run_eva("run", "quickstart", "--run-dir", str(tiny_run), "--json", *tiny_overrides()).stdout)
    results = json.loads(run_eva("eval", "table", str(tiny_run), "--json").stdout)["results"]
    assert table.astype(object).where(table.notna(), None).to_dict("records") == results
    assert run.policy() == Path(summary["policy"]) and run.policy(0) != run.policy()


def tiny_overrides() -> list[str]:
    return [word for name, value in TINY.items() for word in ("--set", f"{name}={json.dumps(value)}")]


def test_rows_are_a_data_set_on_disk(tiny_run: Path) -> None:
    rows = eva.open_run(tiny_run).rows("1-evolve")
    assert rows.to_list() == artifact_rows(tiny_run, "1-evolve")
    assert rows.cache_files, "it is memory-mapped"


def test_health_stages_status_and_lineage_are_those_of_the_commands(tiny_run: Path) -> None:
    run = eva.open_run(tiny_run)
    (figures,) = (entry["health"]["figures"] for entry in run.summary()["iterations"] if entry["iteration"] == 1)
    health = run.health().loc[1]
    assert {name: health[name] for name, value in figures.items() if value is not None} == {
        name: value for name, value in figures.items() if value is not None
    }
    prompt = run.rows("1-mix").filter(lambda row: row["parent_id"] is not None)[0]["prompt_id"]
    assert run.lineage(prompt) == json.loads(run_eva("lineage", str(tiny_run), prompt, "--json").stdout)
    stages = run.stages()
    assert set(stages["state"]) == {"done"} and stages.set_index("stage").loc["1-mix", "rows"] == len(run.rows("1-mix"))
    assert [stage["stage"] for stage in run.status()["stages"]] == list(stages["stage"])


def test_an_unknown_or_ambiguous_stage_is_an_error_that_names_the_stages(tiny_run: Path) -> None:
    run = eva.open_run(tiny_run)
    for name, text in (("1-evolv", "1-evolve"), ("respond", "0-respond, 1-respond"), ("1-train", "has no rows; its files are in")):
        with pytest.raises(eva.ConfigError, match=text):
            run.rows(name)
    with pytest.raises(eva.ConfigError, match="no policy of iteration 7"):
        run.policy(7)
    with pytest.raises(eva.ConfigError, match="open_run opens a run"):
        eva.open_study(tiny_run)
    with pytest.raises(eva.ConfigError, match="there is no stage 'evolv'"):
        eva.run(eva.load_recipe("quickstart", TINY), tiny_run, until="evolv")


def test_a_damaged_file_of_rows_is_an_error(tiny_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "stages" / next(tiny_run.glob("stages/1-mix-*")).name
    (path / "data").mkdir(parents=True)
    for name in ("recipe.yaml", "stages.json", "events.jsonl"):
        (tmp_path / name).write_bytes((tiny_run / name).read_bytes())
    (path / "manifest.json").write_bytes(next(tiny_run.glob("stages/1-mix-*/manifest.json")).read_bytes())
    content = next(tiny_run.glob("stages/1-mix-*/data/rows.parquet")).read_bytes()
    (path / "data" / "rows.parquet").write_bytes(content[:40] + b"\0" * 400 + content[440:])
    with pytest.raises(eva.DamagedError, match=r"rows\.parquet is damaged"):
        eva.open_run(tmp_path).rows("1-mix")


def test_a_recipe_is_a_name_a_path_or_a_mapping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("quickstart", ["iterations=1"])
    assert eva.load_recipe("quickstart", {"iterations": 1}) == recipe == eva.load_recipe(recipe) == eva.load_recipe(recipe.model_dump())
    mapping = recipe.model_dump(mode="json") | {"prompts": {"kind": "file", "path": Path("own.jsonl"), "column": "prompt"}}
    assert eva.load_recipe(mapping).prompts.path == str(tmp_path / "own.jsonl")


def test_anything_else_is_no_recipe() -> None:
    with pytest.raises(eva.ConfigError, match="recipe: is None; give the path of a file"):
        eva.load_recipe(None)  # type: ignore[arg-type]


def test_all_errors_of_a_mapping_and_its_changes_are_reported_at_once() -> None:
    fields = load_recipe("quickstart").model_dump(mode="json") | {"iterations": -1}
    with pytest.raises(eva.ConfigError) as error:
        eva.load_recipe(fields, {"creator.metric": "gap", "policy.modle": "x"})
    places = [fault.partition(":")[0] for fault in error.value.faults]
    assert sorted(places) == ["change creator.metric", "change policy.modle", "the recipe"]


def test_a_file_in_place_of_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for arguments in ({"folder": tmp_path / "file"}, {"store": tmp_path / "file"}):
        with pytest.raises(eva.ConfigError, match="file is not a folder; choose another one"):
            eva.run("quickstart", **arguments)


def test_a_study_runs_in_the_main_thread_only(tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool, pytest.raises(eva.ConfigError, match="call it in the main thread"):
        pool.submit(eva.run_study, "share_drawn", tmp_path).result()


def test_a_study_and_a_recipe_are_validated_and_planned_as_by_the_commands(tiny_run: Path, tmp_path: Path) -> None:
    assert eva.validate("quickstart") == []
    plan = eva.plan(eva.load_recipe("quickstart", TINY), tiny_run)
    assert plan == json.loads(run_eva("plan", "quickstart", "--run-dir", str(tiny_run), "--json", *tiny_overrides()).stdout)
    study = eva.load_study("share_drawn", seeds=2)
    assert {entry["arm"] for entry in eva.plan(study, tmp_path / "study")["arms"]} == set(study.recipes)
    with pytest.raises(eva.ConfigError, match="seeds"):
        eva.load_study("share_drawn", seeds="two")


def test_a_function_receives_the_progress_of_each_stage(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    progress_events: list[Progress] = []
    recipe = eva.load_recipe("quickstart", {**TINY, "prompts.size": 8})
    run = eva.run(recipe, tmp_path / "run", until="0-respond", iterations=0, progress=progress_events.append)
    assert Progress("0-respond", 8, 8, "rows") in progress_events
    assert "0-respond: starts" in [event.message for event in progress_events]
    assert len(run.rows("respond")) == 8
    assert run.scores()["score"].isna().all() and run.health().empty
    assert capfd.readouterr() == ("", "")
