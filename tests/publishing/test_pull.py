"""`eva pull`: a pushed run comes back into a folder without any of its inputs, and every view of it is what it was."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.hf_api
import pytest
import torch
from datasets import load_dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM

from eva_stages.core.errors import ConfigError, DataError, HubError
from eva_stages.core.fingerprint import tree_digest
from eva_stages.core.manifests import read_manifest, write_manifest
from eva_stages.core.run_folder import Run
from eva_stages.publishing.contents import Selection, adapter_config
from eva_stages.publishing.hub import Hub
from eva_stages.publishing.privacy import Privacy
from eva_stages.publishing.pulled_files import checked_paths
from eva_stages.publishing.pulling import PullOutcome, pull_run
from eva_stages.publishing.pushing import push_run
from eva_stages.publishing.report_files import make_report
from eva_stages.publishing.story import story_of
from eva_stages.solver.saving import write_new_adapter
from eva_stages.views.audit_document import audit
from eva_stages.views.history import read_history
from eva_stages.views.prompt_lineage import Lineage
from eva_stages.views.run_scores import run_results
from eva_stages.views.run_status import Watch
from eva_stages.views.run_summary import summary
from tests.conftest import artifact_folder, artifact_rows, run_eva
from tests.hub_server import WRITER, Commit, Fault, HubServer, Repo, hub_server, use_hub

BASE = Path(__file__).parents[2] / "eva_stages/lettercraft/base_policy"
ADAPTER = {"kind": "lora", "rank": 2, "alpha": 4.0, "dropout": 0.0}
DATASET, MODEL = "datasets/tester/small", "models/tester/small-iter0"
TIMES = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d\+00:00| UTC)")


@pytest.fixture(scope="module")
def pushed_run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HubServer, Path]]:
    """A Hub with a pushed run, whose first policy has an adapter beside its weights."""
    home = tmp_path_factory.mktemp("pushed")
    run = Path(shutil.copytree(tiny_run, home / "runs" / "tiny"))
    model = artifact_folder(run, "0-train")
    write_new_adapter(str(BASE), ADAPTER, str(model / "model" / "adapter"))
    write_manifest(model, {**read_manifest(model), "digest": tree_digest(model / "model")})
    with (run / "events.jsonl").open("a") as stream:
        waiting = {"time": "2026-01-01T00:00:00+00:00", "event": "waits", "stage": "0-train", "holder": "process 7 on gpu-17.corp.internal"}
        stream.write(json.dumps(waiting) + "\n")
    with hub_server() as server, pytest.MonkeyPatch.context() as patch:
        use_hub(server, home / "cache", patch)
        patch.setenv("HF_TOKEN", WRITER)
        small = reduced_run(run, home / "runs" / "small", ("prompts", "respond", "reward", "pair", "train"))
        for root in (run, small):
            push_run(Run(root), "tester", False, Selection(), False, lambda line: None)
        yield server, run


def reduced_run(run: Path, target: Path, names: tuple[str, ...]) -> Path:
    """A copy of a run with some stages of its base round, without any benchmark."""
    shutil.copytree(run, target, ignore=shutil.ignore_patterns("published.json", "1-*", "report*"))
    stages = [stage for stage in json.loads((run / "stages.json").read_text()) if stage["name"] in names and not stage["iteration"]]
    (target / "stages.json").write_text(json.dumps(stages))
    return target


@pytest.fixture
def hub(pushed_run: tuple[HubServer, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    server = pushed_run[0]
    use_hub(server, tmp_path / "cache", monkeypatch)
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", server.base)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", server.base)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    server.requests.clear()
    return server


def pull(root: Path, name: str = "tester/small") -> PullOutcome:
    return pull_run(name, root, Hub(lambda line: None, reads_only=True), lambda line: None)


def changed_server(server: HubServer, repository: str, files: dict[str, bytes]) -> Repo:
    """A commit by somebody else."""
    repo = server.repos[repository]
    repo.add({path: (content, path.endswith((".parquet", ".safetensors"))) for path, content in files.items()})
    return repo


def documents(run: Path) -> dict[str, Any]:
    history = read_history(Run(run))
    prompt = artifact_rows(run, "1-evolve")[0]["parent_id"]
    views: dict[str, Any] = {
        "status": Watch(Run(run)).document(),
        "table": run_results(summary(history)),
        "summary": summary(history),
        "lineage": Lineage(history).trace(prompt),
        "tree": Lineage(history).tree(prompt),
        "audit": audit(history, None),
    }
    for stage in views["status"]["stages"]:
        del stage["logs"]  # logs are not pushed
    return json.loads(json.dumps(views).replace(str(run), "RUN"))


def test_a_pulled_run_is_the_pushed_one(pushed_run: tuple[HubServer, Path], hub: HubServer, tmp_path: Path) -> None:
    run, root = pushed_run[1], tmp_path / "elsewhere" / "tiny"
    outcome = pull(root, "tester/tiny")
    assert outcome.stages == len(list(run.glob("stages/*/manifest.json"))) and len(outcome.missing) == 1
    assert "optimiser" in outcome.missing[0]
    hidden_run = shutil.move(run, run.with_name("hidden"))  # nothing of the other machine is there
    try:
        pulled_documents = documents(root)
        report = TIMES.sub("TIME", make_report([Run(root)]).read_text())
    finally:
        shutil.move(hidden_run, run)
    assert pulled_documents == documents(run)
    assert report == TIMES.sub("TIME", make_report([Run(run)]).read_text())
    for folder in (path.name for path in run.glob("stages/*")):
        assert (root / "stages" / folder / "manifest.json").read_bytes() == (run / "stages" / folder / "manifest.json").read_bytes()
        (content,) = [path for path in (run / "stages" / folder).iterdir() if path.is_dir()]
        assert tree_digest(root / "stages" / folder / content.name) == tree_digest(content), folder
    assert not list(root.rglob("*.py")) and not (root / ".pull").exists()


def test_a_second_pull_fetches_nothing_large(hub: HubServer, tmp_path: Path) -> None:
    pull(tmp_path / "tiny")
    hub.requests.clear()
    outcome = pull(tmp_path / "tiny")
    assert outcome.files == outcome.size == 0
    assert not hub.count_requests("GET", r"\.(parquet|safetensors)$")


def test_a_pull_that_was_cut_off_goes_on(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eva_stages.publishing.hub.TRIES", 1)
    hub.faults = [Fault("404", "GET", r"small-iter0/resolve/.*/model.safetensors") for _ in range(9)]
    with pytest.raises(HubError, match=r"resume|again"):
        pull(tmp_path / "tiny")
    hub.faults = []
    assert not list(tmp_path.glob("tiny/stages/*/manifest.json"))
    pull(tmp_path / "tiny")
    assert read_history(Run(tmp_path / "tiny")).find("train", 0) is not None


def test_other_content_is_never_overwritten(hub: HubServer, tmp_path: Path, pushed_run: tuple[HubServer, Path]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for folder in (tmp_path / "mine", pushed_run[1]):
        with pytest.raises(ConfigError, match=r"is no pull of tester/small; choose another folder with --to"):
            pull(folder)
    root = tmp_path / "tiny"
    pull(root)
    (root / "events.jsonl").write_text("changed")
    (root / "pulled.json").write_text((root / "pulled.json").read_text())
    with pytest.raises(ConfigError, match=r"events\.jsonl is not as it was pulled"):
        pull(root)
    assert (root / "events.jsonl").read_text() == "changed"
    (root / "events.jsonl").unlink()
    (root / "events.jsonl").symlink_to(tmp_path / "target")
    with pytest.raises(ConfigError, match="plain files only"):
        pull(root)
    assert not (tmp_path / "target").exists()
    record = json.loads((root / "pulled.json").read_text())
    (root / "pulled.json").write_text(json.dumps({**record, "run": "another"}))
    with pytest.raises(ConfigError, match="pull of another run"):
        pull(root)


@pytest.mark.parametrize("path", ["../x.json", "/etc/x.json", "run/../../x.json", "a//b", "run/.hidden", "run/a\\b.json", ""])
def test_paths_that_lead_elsewhere_are_refused(path: str) -> None:
    with pytest.raises(DataError, match="no place in a run; nothing was fetched"):
        checked_paths("datasets/a/b", ["run/recipe.yaml", path])


def test_files_that_are_not_what_was_pushed_are_refused(hub: HubServer, tmp_path: Path) -> None:
    original = dict(hub.files(DATASET))
    weights = hub.files(MODEL)["model.safetensors"]
    cases = [
        (DATASET, {"run/stages.json": b"[]"}, "run/stages.json is not what was pushed"),
        (DATASET, {"pairs-0/rows.parquet": original["rewards-0/rows.parquet"]}, "pairs-0/rows.parquet is not what was pushed"),
        (MODEL, {"model.safetensors": weights[:-1] + b"x"}, "model.safetensors is not what was pushed"),
        (DATASET, _consistent(original, {"pairs-0/rows.parquet": original["rewards-0/rows.parquet"]}), "0-pair-.* the digest is another"),
        (DATASET, _consistent(original, {"../../evil.json": b"{}"}), "no place in a run"),
    ]
    for repository, files, message in cases:
        repo = changed_server(hub, repository, files)
        with pytest.raises(DataError, match=message):
            pull(tmp_path / "tiny")
        repo.commits.pop()
        assert not (tmp_path / "evil.json").exists() and not list(tmp_path.glob("tiny/stages/*/manifest.json"))
    pull(tmp_path / "tiny")


def _consistent(original: dict[str, bytes], files: dict[str, bytes]) -> dict[str, bytes]:
    """Files, and `eva.json` with their hashes, as one who can write to the repository could commit them."""
    import hashlib

    mark = json.loads(original["eva.json"])
    hashes = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    mark = {**mark, "files": sorted({*mark["files"], *files}), "sha256": {**mark["sha256"], **hashes}}
    return {**files, "eva.json": json.dumps(mark).encode()}


def test_what_is_not_on_the_hub_is_said(hub: HubServer, tmp_path: Path) -> None:
    model = hub.repos.pop(MODEL)
    try:
        outcome = pull(tmp_path / "tiny")
    finally:
        hub.repos[MODEL] = model
    assert "models/tester/small-iter0 is not there" in outcome.missing[0]
    with pytest.raises(ConfigError, match="there is no data set tester/nothing on the Hub"):
        pull(tmp_path / "nothing", "tester/nothing")
    hub.repos["datasets/tester/foreign"] = Repo(private=False)
    hub.repos["datasets/tester/foreign"].add({"README.md": (b"# mine", False)})
    with pytest.raises(ConfigError, match=r"has no eva\.json"):
        pull(tmp_path / "foreign", "tester/foreign")
    assert "give NAMESPACE/RUN" in run_eva("pull", "tiny", code=2).stderr
    assert f"eva report {tmp_path / 'tiny'}" in run_eva("pull", "tester/small", "--to", str(tmp_path / "tiny")).stderr


@pytest.mark.parametrize(
    ("repository", "path", "error", "text"),
    [
        (DATASET, "run/stages.json", "no longer has run/stages.json, which was pushed; push the run again", ""),
        (MODEL, "manifest.json", "no longer has manifest.json, which was pushed; push the run again", ""),
        (DATASET, "pairs-0/manifest.json", "", "no longer has pairs-0/manifest.json, which was pushed; if stages are missing, push"),
        (DATASET, "README.md", "", "files are new"),
    ],
)
def test_a_file_that_was_deleted_on_the_hub_is_reported(
    hub: HubServer, tmp_path: Path, repository: str, path: str, error: str, text: str
) -> None:
    repo, lines = hub.repos[repository], list[str]()
    repo.commits.append(Commit("f" * 40, {name: file for name, file in repo.commits[-1].files.items() if name != path}))
    try:
        with pytest.raises(DataError, match=error) if error else nullcontext():
            pull_run("tester/small", tmp_path / "tiny", Hub(lines.append, reads_only=True), lines.append)
    finally:
        repo.commits.pop()
    assert text in "\n".join(lines)


def test_adapters_load_beside_the_weights_that_contain_them(hub: HubServer) -> None:
    files = hub.files(MODEL)
    assert {"adapter/adapter_config.json", "adapter/adapter_model.safetensors", "model.safetensors"} <= set(files)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(BASE), "tester/small-iter0", subfolder="adapter")
    assert any("lora_" in name for name, _ in model.named_parameters())
    assert type(AutoModelForCausalLM.from_pretrained("tester/small-iter0")).__name__ == "LlamaForCausalLM"
    with torch.no_grad():
        assert torch.isfinite(model(torch.tensor([[1, 2, 3]])).logits).all()
    assert 'subfolder="adapter"' in files["README.md"].decode()


def test_the_card_of_an_adapter_names_the_model_that_it_adapts(pushed_run: tuple[HubServer, Path]) -> None:
    story = story_of(read_history(Run(pushed_run[1])), "tester", Privacy(pushed_run[1]))
    config = artifact_folder(pushed_run[1], "0-train") / "model" / "adapter" / "adapter_config.json"
    assert adapter_config(config, None) == config.read_bytes()
    adapted_model = story.adapted_model(story.policies[1])
    assert adapted_model == "tester/tiny-iter0" and story.adapted_model(story.policies[0]) is None
    assert json.loads(adapter_config(config, adapted_model))["base_model_name_or_path"] == adapted_model


def test_scores_and_pairs_load_in_the_viewer(pushed_run: tuple[HubServer, Path], hub: HubServer, tmp_path: Path) -> None:
    rows = load_dataset("tester/tiny", "scores", split="train", cache_dir=str(tmp_path)).to_list()
    assert {"benchmark", "policy", "score", "value", "low", "high", "questions"} == set(rows[0])
    assert {row["policy"] for row in rows} == {"base", "iteration 0", "iteration 1"}
    assert len(rows) == hub.files("datasets/tester/tiny")["scores.csv"].decode().count("\n") - 1
    pairs = load_dataset("tester/tiny", split="train", cache_dir=str(tmp_path))
    assert pairs.features["chosen"] and len(pairs) == len(artifact_rows(pushed_run[1], "1-pair"))


def test_no_machine_is_named_in_what_is_pushed(hub: HubServer) -> None:
    for repository in (DATASET, MODEL):
        for path, content in hub.files(repository).items():
            if not path.endswith((".parquet", ".safetensors")):
                assert b"corp.internal" not in content and b'"holder"' not in content, path
    assert b'"waits"' in hub.files(DATASET)["run/events.jsonl"]


def test_a_run_without_benchmarks_is_pushed_and_pulled(hub: HubServer, tmp_path: Path) -> None:
    files = hub.files(DATASET)
    assert "scores.csv" not in files and "were not evaluated" in files["README.md"].decode()
    assert pull(tmp_path / "plain").stages == 5
    history = read_history(Run(tmp_path / "plain"))
    assert history.every("train") and not summary(history)["benchmarks"]
