"""`eva push` with the real client against a local Hub: one story of pushes of the tiny run, and what it refuses."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pyarrow.parquet as pq
import pytest
import yaml

from cli.next_steps import after_push
from eva_stages.core.errors import ConfigError, DataError
from eva_stages.core.run_folder import Run
from eva_stages.publishing.contents import Selection, checkpoint_files
from eva_stages.publishing.pushing import push_run
from tests.conftest import events, kill_group, manifests, run_eva, start_eva
from tests.hub_server import READER, STRANGER, WRITER, Fault, HubServer, Repo, hub_server, use_hub

DATASET, MODELS = "datasets/tester/tiny", ("models/tester/tiny-iter0", "models/tester/tiny-iter1")
WRITES = "create|preupload|commit|storage|lfs|validate|collections"


def environment(server: HubServer, home: Path, token: str = WRITER) -> dict[str, str]:
    variables = {
        "HF_ENDPOINT": server.base,
        "HF_HOME": str(home / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": token,
        "HF_HUB_OFFLINE": "0",
    }
    return {**variables, "HF_HUB_DOWNLOAD_TIMEOUT": "3"}


class Story:
    """What the pushes of one run left, step by step."""

    def __init__(self, server: HubServer, run: Path, home: Path) -> None:
        self.server, self.run, self.home = server, run, home
        self.output_by_step: dict[str, str] = {}
        self.requests: dict[str, list[tuple[str, str]]] = {}
        self.files: dict[str, dict[str, dict[str, bytes]]] = {}

    def note(self, step: str, output: str = "") -> None:
        self.output_by_step[step] = output
        self.requests[step] = list(self.server.requests)
        self.files[step] = {name: self.server.files(name) for name in self.server.repos}
        self.server.requests.clear()

    def changed_paths(self, repo: str, old_commit: str, new_commit: str) -> set[str]:
        old, new = self.files[old_commit].get(repo, {}), self.files[new_commit][repo]
        return {path for path in new if new[path] != old.get(path)}


@pytest.fixture(scope="module")
def story(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Iteration 0 with a flaky Hub, all of it and killed, all of it again, once more, and a run that publishes what it changed."""
    home = tmp_path_factory.mktemp("home")
    run = home / "runs" / "tiny"
    shutil.copytree(tiny_run, run)
    with hub_server() as server:
        server.repos[DATASET] = Repo(private=False)
        server.repos[DATASET].add({"notes.txt": (b"somebody's own", False)})
        story = Story(server, run, home)
        story.note("before")
        push = ("push", str(run), "--to", "tester")
        server.faults = [
            Fault("429", "GET", "whoami"),
            Fault("hang", "POST", "validate-yaml"),
            Fault("500", "PUT", "storage"),
            Fault("cut", "POST", "repos/create"),
            Fault("503", "POST", "datasets/tester/tiny/commit"),
            Fault("lost", "POST", "models/tester/tiny-iter0/commit"),
        ]
        story.note("iteration 0", run_eva(*push, "--iteration", "0", **environment(server, home)).stderr)
        server.stop_at = r"/storage/\w+/2$"
        process = start_eva(*push, **environment(server, home))
        assert server.request_stopped.wait(120), "the push never got to the weights"
        kill_group(process)
        server.stop_at = ""
        story.note("killed")
        story.note("resumed", run_eva(*push, **environment(server, home)).stdout)
        story.note("again", run_eva(*push, **environment(server, home)).stdout)
        server.faults = [Fault("403", "POST", "datasets/tester/tiny/commit")]
        changes = ("--set", "publish.to=tester", "--set", "evaluation.benchmarks.0.confidence=0.9")
        recipe = str(run / "recipe.yaml")
        story.note("published", run_eva("run", recipe, "--run-dir", str(run), *changes, **environment(server, home)).stderr)
        yield story


def test_the_adapter_beside_merged_weights_is_published(tmp_path: Path) -> None:
    names = (
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "config.json",
        "model.safetensors",
        "optimizer.pt",
        "x/y.json",
    )
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in checkpoint_files(tmp_path)] == list(names[:4])


def test_a_flaky_hub_gets_each_commit_once(story: Story) -> None:
    assert story.server.faults == []
    output = story.output_by_step["iteration 0"]
    for cause in ("answered 429", "ReadTimeout", "answered 503", "retrying in"):
        assert cause in output
    assert len(story.server.repos[MODELS[0]].commits) == 3  # made, iteration 0, the changed scores: the lost answer made no second one


def test_one_iteration_alone_brings_its_rows_its_policy_and_a_card_that_lists_them(story: Story) -> None:
    files = story.files["iteration 0"]
    assert set(files) == {DATASET, MODELS[0]}
    data = yaml.safe_load(files[DATASET]["README.md"].decode().split("---\n")[1])
    names = {config["config_name"] for config in data["configs"]}
    assert {"prompts-0", "responses-0", "rewards-0", "pairs-0", "judgments-0"} <= names
    assert [name for name in names if not name.endswith("-0")] == ["scores"]
    assert [config["config_name"] for config in data["configs"] if config.get("default")] == ["pairs-0"]


def test_a_killed_push_goes_on_where_it_was(story: Story) -> None:
    sent_paths = [path for step in story.requests for method, path in story.requests[step] if method == "PUT" and path.count("/") == 2]
    assert len(sent_paths) == len(set(sent_paths)) + 1  # the one that met the 500 was sent twice
    resumed_requests = story.requests["resumed"]
    assert not [path for method, path in resumed_requests if "datasets" in path and method == "POST"], (
        "the data set was whole before the kill"
    )
    assert {path.split("/")[2] for method, path in resumed_requests if method == "PUT"} == {digest(story, MODELS[1], "model.safetensors")}
    assert set(story.files["resumed"]) == {DATASET, *MODELS}


def digest(story: Story, repo: str, path: str) -> str:
    return hashlib.sha256(story.files["resumed"][repo][path]).hexdigest()


def test_everything_is_there_as_it_is_on_disk(story: Story) -> None:
    files = story.files["resumed"]
    for label, manifest in manifests(story.run).items():
        if manifest["rows"] is None:
            continue
        (folder,) = (story.run / "stages").glob(f"{label}-{manifest['fingerprint'][:12]}")
        rows = (folder / "data" / "rows.parquet").read_bytes()
        (name,) = [path.partition("/")[0] for path, content in files[DATASET].items() if content == rows]
        assert json.loads(files[DATASET][f"{name}/manifest.json"])["fingerprint"] == manifest["fingerprint"]
        if (folder / "pipeline.yaml").is_file():
            pipeline = yaml.safe_load(files[DATASET][f"{name}/pipeline.yaml"])
            assert {"pipeline", "distilabel"} <= set(pipeline)
    assert {"model.safetensors", "tokenizer.json", "generation_config.json", "training_log.json", "chat_template.jinja"} <= set(
        files[MODELS[1]]
    )


def test_files_of_others_are_kept(story: Story) -> None:
    for step in ("iteration 0", "resumed", "published"):
        assert story.files[step][DATASET]["notes.txt"] == b"somebody's own"


def test_a_second_push_sends_nothing(story: Story) -> None:
    writes = [(method, path) for method, path in story.requests["again"] if method in ("POST", "PUT")]
    assert writes == []
    assert story.files["again"] == story.files["resumed"]


def test_only_what_has_changed_is_sent_after_a_run_with_another_setting(story: Story) -> None:
    names = ("base-score-0", "eval-score-0", "health-0", "eval-score-1", "health-1")
    scores = {path for name in names for path in (f"{name}/manifest.json", f"{name}/{'figures' if 'health' in name else 'score'}.json")}
    changed_paths = story.changed_paths(DATASET, "again", "published")
    of_run = {f"run/{name}" for name in ("recipe.yaml", "stages.json", "plan.json", "events.jsonl")}
    assert changed_paths - scores == {"README.md", "recipe.yaml", "scores.csv", "scores/rows.parquet", "eva.json", *of_run}
    assert {path for path in scores if path.endswith("manifest.json")} <= changed_paths
    for repo in MODELS:
        assert story.changed_paths(repo, "again", "published") == {"README.md", "recipe.yaml", "eva.json"}
    assert len([path for method, path in story.requests["published"] if method == "PUT"]) == 2  # the table of scores, once in vain


def test_a_run_publishes_after_each_iteration_and_a_failed_push_does_not_stop_it(story: Story) -> None:
    log = events(story.run)
    kinds = [(event["event"], event.get("stage") or event.get("repository") or event.get("iteration")) for event in log]
    last_done = max(index for index, kind in enumerate(kinds) if kind == ("done", "0-health"))
    later_kinds = kinds[last_done + 1 :]
    assert later_kinds[0] == ("not-published", 0)
    assert later_kinds.index(("done", "1-health")) < later_kinds.index(("published", DATASET))
    assert "the token has no permission" in story.output_by_step["published"]


def test_the_run_records_the_commit_and_hash_of_everything(story: Story) -> None:
    record = json.loads((story.run / "published.json").read_text())
    assert set(record["repositories"]) == {DATASET, *MODELS}
    for name, entry in record["repositories"].items():
        assert entry["commit"] == story.server.repos[name].commits[-1].oid
        own_files = {path: content for path, content in story.server.files(name).items() if path not in (".gitattributes", "notes.txt")}
        assert {path: file["sha256"] for path, file in entry["files"].items()} == {
            path: hashlib.sha256(content).hexdigest() for path, content in own_files.items()
        }


def test_a_collection_ties_everything_once(story: Story) -> None:
    (collection,) = story.server.collections.values()
    assert collection["title"] == "eva: tiny"
    items = [f"{item['type']}s/{item['id']}" for item in collection["items"]]
    assert sorted(items) == sorted([DATASET, *MODELS])


def test_a_push_ends_with_the_address_of_its_collection() -> None:
    address = f"{huggingface_hub.constants.ENDPOINT}/collections/tester/eva-tiny-0a"
    assert after_push(False, "tester/eva-tiny-0a") == f"open in a browser: {address}"


def test_data_sets_and_models_load_from_the_hub(story: Story) -> None:
    code = """
import json, torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
pairs = load_dataset("tester/tiny", "pairs-1", split="train")
default = load_dataset("tester/tiny", split="train")
tokenizer = AutoTokenizer.from_pretrained("tester/tiny-iter1")
model = AutoModelForCausalLM.from_pretrained("tester/tiny-iter1")
inputs = tokenizer.apply_chat_template(pairs[0]["prompt"], add_generation_prompt=True, return_tensors="pt", return_dict=True)
logits = model(**inputs).logits
print(json.dumps({"rows": pairs.to_list(), "same": default.to_list() == pairs.to_list(), "finite": bool(torch.isfinite(logits).all())}))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment(story.server, story.home)}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    loaded_counts = json.loads(result.stdout.splitlines()[-1])
    (folder,) = (story.run / "stages").glob("1-pair-*")
    assert loaded_counts["rows"] == pq.read_table(folder / "data").to_pylist()
    assert loaded_counts["same"] and loaded_counts["finite"]


def test_nothing_of_the_machine_is_in_any_file(story: Story) -> None:
    private = [str(story.run), str(story.home), str(Path(__file__).parents[2]), sys.prefix, WRITER]
    for repo in story.server.repos:
        for path, content in story.server.files(repo).items():
            text = readable(path, content)
            assert not [word for word in private if word in text], f"{repo}/{path}"


def readable(path: str, content: bytes) -> str:
    return str(pq.read_table(io.BytesIO(content)).to_pylist()) if path.endswith(".parquet") else content.decode(errors="replace")


# --- what it refuses


@pytest.fixture
def local_story(story: Story, monkeypatch: pytest.MonkeyPatch) -> Story:
    """The local Hub for the client in this process."""
    use_hub(story.server, story.home / "cache", monkeypatch)
    monkeypatch.setenv("HF_TOKEN", WRITER)
    story.server.requests.clear()
    return story


def push_outcomes(run: Path, namespace: str = "tester", private: bool = False, dry_run: bool = False, **selection: Any) -> Any:
    return push_run(Run(run), namespace, private, Selection(**selection), dry_run, lambda text: None)


def renamed_run(story: Story, name: str, keep_record: bool = False) -> Path:
    copy = story.home / "runs" / name
    shutil.copytree(story.run, copy, dirs_exist_ok=True)
    if not keep_record:
        (copy / "published.json").unlink()
    return copy


def refusal_of(run: Path, **settings: Any) -> str:
    with pytest.raises(ConfigError) as error_info:
        push_outcomes(run, **settings)
    return "\n".join(error_info.value.faults)


def test_tokens_that_cannot_push_are_refused_with_the_fix(local_story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", READER)
    assert "read permission only" in refusal_of(local_story.run) and "settings/tokens" in refusal_of(local_story.run)
    monkeypatch.setenv("HF_TOKEN", STRANGER)
    assert "cannot push to tester; it can push to stranger" in refusal_of(local_story.run)
    monkeypatch.setenv("HF_TOKEN", "hf_nobody_0123456789")
    message = refusal_of(local_story.run)
    assert "does not accept the token" in message and "hf_nobody" not in message
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(local_story.home / "no-token"))
    assert "hf auth login" in refusal_of(local_story.run)
    assert local_story.server.count_requests("POST", ".") == local_story.server.count_requests("PUT", ".") == 0


def test_a_file_of_others_is_never_written_over(local_story: Story) -> None:
    run = renamed_run(local_story, "taken")
    repo = local_story.server.repos["models/tester/taken-iter0"] = Repo(private=False)
    repo.add({"README.md": (b"# mine", False), "notes.txt": (b"mine too", False)})
    message = refusal_of(run, part="models", iteration=0)
    assert "models/tester/taken-iter0" in message and "README.md" in message and "notes.txt" not in message
    assert len(repo.commits) == 1
    assert local_story.server.count_requests("PUT", ".") == 0


def test_another_run_of_the_same_name_is_refused(local_story: Story) -> None:
    other_run = local_story.home / "elsewhere" / "tiny"
    shutil.copytree(local_story.run, other_run)
    (other_run / "published.json").unlink()
    assert "contains another run" in refusal_of(other_run)


def test_private_pushes_need_private_repositories(local_story: Story) -> None:
    assert "is public" in refusal_of(local_story.run, private=True)
    outcomes, _ = push_outcomes(renamed_run(local_story, "secret"), private=True, part="models", iteration=0)
    assert [outcome.repository.name for outcome in outcomes] == ["models/tester/secret-iter0"]
    assert local_story.server.repos["models/tester/secret-iter0"].private


def test_a_report_goes_along_or_is_asked_for(local_story: Story) -> None:
    run = renamed_run(local_story, "reported")
    assert f"eva report {run}" in refusal_of(run, part="report")
    (run / "report.html").write_text("<html>a report</html>")
    push_outcomes(run, part="report")
    assert set(local_story.server.files("datasets/tester/reported")) == {".gitattributes", "report.html", "eva.json"}


def test_a_dry_run_asks_nobody(local_story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    run = renamed_run(local_story, "untouched")
    outcomes, collection = push_outcomes(run, dry_run=True)
    assert [len(outcome.changed_paths) == len(outcome.repository.files) for outcome in outcomes] == [True] * 3 and collection is None
    outcomes, _ = push_outcomes(local_story.run, dry_run=True)
    assert [outcome.changed_paths for outcome in outcomes] == [()] * 3
    assert local_story.server.requests == []


def test_what_is_not_there_cannot_be_pushed(local_story: Story) -> None:
    assert "iterations with complete stages: [0, 1]" in refusal_of(local_story.run, iteration=7)
    assert local_story.server.count_requests("POST", ".") == 0


def test_a_push_that_was_cut_off_before_it_was_recorded_keeps_its_files(local_story: Story) -> None:
    run = renamed_run(local_story, "forgetful")
    push_outcomes(run, part="datasets", iteration=0)
    record = json.loads((run / "published.json").read_text())
    (run / "published.json").write_text(json.dumps({**record, "repositories": {}}))
    local_story.server.requests.clear()
    (outcome,), _ = push_outcomes(run, part="datasets", iteration=1)
    assert not [path for path in outcome.changed_paths if path.endswith("-0/rows.parquet")]
    own_files = json.loads(local_story.server.files("datasets/tester/forgetful")["eva.json"])["files"]
    assert {"pairs-0/rows.parquet", "pairs-1/rows.parquet"} <= set(own_files)
    push_outcomes(run, part="datasets")
    assert json.loads(local_story.server.files("datasets/tester/forgetful")["eva.json"])["files"] == own_files


def test_a_changed_artifact_is_not_pushed(local_story: Story) -> None:
    run = renamed_run(local_story, "damaged")
    (folder,) = (run / "stages").glob("0-pair-*")
    table = pq.read_table(folder / "data" / "rows.parquet")
    pq.write_table(table.slice(1), folder / "data" / "rows.parquet")
    with pytest.raises(DataError, match="0-pair"):
        push_outcomes(run)
    assert "datasets/tester/damaged" not in local_story.server.repos
