"""What every command prints at 80 and 120 columns, with `--quiet`, and what it says to do next, over one small run."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import TINY, artifact_rows, overrides, run_eva

SMALL_RUN = overrides(TINY)
COMMANDS = {
    "plan quickstart --run-dir RUN SMALL": r"all stages are done; see the results: eva report \S+ --open",
    "plan quickstart --run-dir NEW SMALL": r"run it: eva run quickstart --run-dir \S+ --set prompts.size=40",
    "status RUN": r"see the results: eva report \S+ --open",
    "runs FOLDER": r"see the stages of a run: eva status \S+",
    "gc FOLDER --dry-run": r"see the sizes of the runs: eva runs \S+",
    "audit RUN": r"measure what a training step on each prompt changes: eva audit \S+ --influence 200",
    "lineage RUN PROMPT": r"see all evolutions of its seed: eva lineage \S+ \w+ --from-seed",
    "lineage RUN PROMPT --from-seed": r"see its responses, rewards and pairs: eva lineage \S+ \w+$",
    "eval table RUN": r"test the differences to the base policy: eva eval compare \S+",
    "eval compare RUN": r"see the results in plots: eva report \S+ --open",
    "push RUN --to me --dry-run": r"push it: eva push \S+ --to me$",
    "validate quickstart": r"see what a run would take: eva plan quickstart$",
}


@pytest.fixture(scope="module")
def words(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What stands for the words in capitals."""
    folder = tmp_path_factory.mktemp("folder")
    shutil.copytree(tiny_run, folder / "run", symlinks=True)
    prompt_id = next(row["prompt_id"] for row in artifact_rows(tiny_run, "1-mix") if row["origin"] == "evolved")
    names = {"RUN": folder / "run", "FOLDER": folder, "NEW": folder / "new", "PROMPT": prompt_id}
    return {"SMALL": SMALL_RUN, **{name: [str(value)] for name, value in names.items()}}


def arguments(command: str, words: dict[str, list[str]]) -> list[str]:
    return [argument for word in command.split() for argument in words.get(word, [word])]


def most_columns(text: str) -> int:
    return max(map(len, text.splitlines()), default=0)


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("command", COMMANDS)
def test_output_fits_the_terminal_and_ends_with_what_to_do_next(
    words: dict[str, list[str]], command: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.conftest.COLUMNS", str(width))
    output = run_eva(*arguments(command, words))
    assert most_columns(output.stdout) <= width
    assert re.search(rf"^next: {COMMANDS[command]}", output.stderr.splitlines()[-1])


def test_quiet_and_json_print_results_alone(words: dict[str, list[str]]) -> None:
    usual, quiet, document = (run_eva(*arguments(f"status RUN {option}", words)) for option in ("", "-q", "--json"))
    assert (quiet.stdout, quiet.stderr) == (usual.stdout, "")
    assert json.loads(document.stdout)["stages"] and document.stderr == ""
    assert run_eva(*arguments("status RUN -q -v", words), code=2).stdout == ""


def test_a_complete_run_shows_its_tables_and_resumes_from_its_folder(words: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.conftest.COLUMNS", "80")
    (run,) = words["RUN"]
    output = run_eva("run", f"{run}/recipe.yaml", "--run-dir", run)
    assert most_columns(output.stdout) <= 80 and "held out" in output.stdout
    assert "starts" not in output.stderr
    assert output.stderr.splitlines()[-1] == f"next: see the results: eva report {run} --open; all stages: eva status {run}"


def test_the_creator_ends_with_its_prompts(words: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.conftest.COLUMNS", "80")
    command = arguments("creator quickstart --iteration 1 --run-dir RUN SMALL", words)
    output = run_eva(*command)
    sample = json.loads(run_eva(*command, "--json").stdout)["creator_prompts"]
    assert most_columns(output.stdout) <= 80
    assert sample["prompts"] == 40 and sum(sample["origins"].values()) == 40
    assert 0 < len(sample["sample"]) <= 5 and all(example["parent"] and example["mutation"] for example in sample["sample"])
    example = sample["sample"][0]
    assert all(word in output.stdout for text in (example["parent"], example["evolution"]) for word in text.split())
    assert re.search(r"^next: train the policy on these prompts: eva solver quickstart --iteration 1 ", output.stderr.splitlines()[-1])


def test_until_prints_no_empty_tables_and_names_the_rest(words: dict[str, list[str]], tmp_path: Path) -> None:
    (run,) = words["RUN"]
    new_run = tmp_path / "part"
    shutil.copytree(run, new_run, symlinks=True)
    for folder in [
        path for path in (new_run / "stages").iterdir() if not re.match(r"0-(prompts|respond|reward|pair)-[0-9a-f]{12}$", path.name)
    ]:
        shutil.rmtree(folder)
    output = run_eva("run", "quickstart", "--until", "0-pair", "--run-dir", str(new_run), "--store", str(new_run), *SMALL_RUN)
    assert "0 (base)" in output.stdout
    assert not any(text in output.stdout for text in ("held out", "policy:", "loss", "iteration 1", "evolutions rejected"))
    assert re.search(r"^next: complete the run: eva run quickstart --run-dir ", output.stderr.splitlines()[-1])


def test_status_says_where_the_logs_are(words: dict[str, list[str]]) -> None:
    (run,) = words["RUN"]
    document = json.loads(run_eva("status", run, "--json").stdout)
    logs = [Path(log) for entry in document["stages"] if entry["stage"] == "0-train" for log in entry["logs"]]
    assert [log.name for log in logs] == ["training.log"] and "loss" in logs[0].read_text()
    assert f"{run}/stages/STAGE*/*.log" in "".join(run_eva("status", run).stdout.split("\n"))
