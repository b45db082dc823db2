"""Prompts and models from the Hub, at commits; and a run of private prompts that is pushed and made again by what its card says."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import DatasetCard

from eva_stages.core.config.prompts_config import HubPrompts
from eva_stages.core.errors import ConfigError
from eva_stages.creator.hub_prompts import dataset_commit
from eva_stages.models.loading import LETTERCRAFT, find_checkpoint
from eva_stages.solver.launch_file import launch_path
from tests.conftest import TINY, manifests, overrides, run_eva
from tests.hub_server import WRITER, HubServer, Repo, hub_server, use_hub
from tests.publishing.test_push import environment as settings_of
from tests.publishing.test_push import readable

KEY = "sk-planted-key-0123456789"


@dataclass
class PushedRun:
    server: HubServer
    home: Path
    run: Path
    environment: dict[str, str]

    @property
    def repo(self) -> Repo:
        return self.server.repos["datasets/tester/private"]


@pytest.fixture(scope="module")
def pushed_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PushedRun]:
    """The prompts of a run, read from a file in somebody's home folder that holds a token, a key and paths, and pushed."""
    home = tmp_path_factory.mktemp("homes") / "alice"
    run = home / "runs" / "private"
    run.mkdir(parents=True)
    texts = [f"Question {index}?" for index in range(12)]
    texts += [f"Is {WRITER} a token?", f"Is {KEY} a key?", f"What is in {home}/notes?", "What is in /etc/ssl/certs?"]
    rows = [{"prompt": text, "answer": index} for index, text in enumerate(texts)]
    file = home / "my prompts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    launch = home / "launch.yaml"
    launch.write_text(launch_path("cpu").read_text())
    prompts = {"kind": "file", "path": str(file), "reference_column": "answer"}
    settings = {**TINY, "prompts": prompts, "solver.training.runtime.launch": str(launch)}
    del settings["prompts.size"]
    with hub_server() as server:
        environment = {**settings_of(server, home), "HOME": str(home), "OPENAI_API_KEY": KEY}
        run_eva("run", "quickstart", "--run-dir", str(run), "--until", "prompts", *overrides(settings), **environment)
        run_eva("push", str(run), "--to", "tester", "--only", "datasets", **environment)
        yield PushedRun(server, home, run, environment)


@pytest.fixture
def local_run(pushed_run: PushedRun, monkeypatch: pytest.MonkeyPatch) -> PushedRun:
    """The local Hub for the client in this process."""
    use_hub(pushed_run.server, pushed_run.home / "cache", monkeypatch)
    return pushed_run


def test_nothing_private_of_a_run_reaches_the_hub(pushed_run: PushedRun) -> None:
    files = pushed_run.server.files("datasets/tester/private")
    assert {"README.md", "recipe.yaml", "prompts-0/rows.parquet", "prompts-0/manifest.json"} <= set(files)
    for path, content in files.items():
        text = readable(path, content)
        assert not [word for word in (WRITER, KEY, str(pushed_run.home), "alice") if word in text], path
    recipe = yaml.safe_load(files["recipe.yaml"])
    assert recipe["prompts"]["path"] == "my prompts.jsonl" and recipe["solver"]["training"]["runtime"]["launch"] == "launch.yaml"
    assert json.loads(files["prompts-0/manifest.json"])["replaced_values"] == 3
    assert "/etc/ssl/certs" in readable("rows.parquet", files["prompts-0/rows.parquet"])
    record = (pushed_run.run / "published.json").read_text()
    assert WRITER not in record and str(pushed_run.home) not in record


def test_the_commands_of_the_card_make_the_same_prompts_again(pushed_run: PushedRun, tmp_path: Path) -> None:
    card = DatasetCard(pushed_run.server.files("datasets/tester/private")["README.md"].decode())
    download, run = card.text.partition("## How to reproduce it")[2].partition("```bash\n")[2].partition("\n```")[0].splitlines()
    assert download.startswith("hf download tester/private") and run.startswith("eva run recipe.yaml")
    client = [sys.executable, "-m", "huggingface_hub.cli.hf", *shlex.split(download)[1:]]
    subprocess.run(client, cwd=tmp_path, check=True, capture_output=True, env={**os.environ, **pushed_run.environment})
    options = ("--set", "solver.training.runtime.launch=cpu", "--until", "prompts", "--run-dir", "again")
    run_eva(*shlex.split(run)[1:], *options, cwd=tmp_path, **pushed_run.environment)
    manifest_by_label = manifests(tmp_path / "again")["0-prompts"]
    assert manifest_by_label["work"]["arguments"]["revision"] == pushed_run.repo.commits[-1].oid
    tables = [pq.read_table(next(run.glob("stages/0-prompts-*/data/rows.parquet"))) for run in (pushed_run.run, tmp_path / "again")]
    first, second = (table.select(["prompt_id", "messages", "reference"]).to_pylist() for table in tables)
    kept_places = [index for index, row in enumerate(second) if "[removed]" not in str(row) and "~" not in str(row)]
    assert len(first) == len(second) == 16 and len(kept_places) == 13
    assert [first[index] for index in kept_places] == [second[index] for index in kept_places]


def test_what_is_not_on_the_hub_is_found_before_anything_runs(pushed_run: PushedRun) -> None:
    sources = {
        "{kind: hub, id: tester/nothing}": "no data set tester/nothing",
        "{kind: hub, id: tester/private, config: pairs-9}": "prompts-0",
        "{kind: hub, id: tester/private, config: prompts-0, column: question}": "no column 'question'; it has prompt_id, messages",
    }
    code = (
        "import sys; from eva_stages.core.recipe_files import load_recipe; from eva_stages.api.preparing import prepare\n"
        "from eva_stages.core.errors import ConfigError\n"
        "for source in sys.argv[1:]:\n"
        "    try: prepare(load_recipe('quickstart', [f'prompts={source}']))\n"
        "    except ConfigError as error: print(' | '.join(error.faults))\n"
    )
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
    environment = {**os.environ, **pushed_run.environment, "PYTHONPATH": path}
    result = subprocess.run([sys.executable, "-c", code, *sources], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    for line, expected in zip(result.stdout.splitlines(), sources.values(), strict=True):
        assert expected in line


def test_revisions_are_resolved_to_commits(local_run: PushedRun) -> None:
    head = local_run.repo.commits[-1].oid
    assert dataset_commit("tester/private", None) == dataset_commit("tester/private", "main") == head
    assert dataset_commit("tester/private", "a" * 40) == "a" * 40
    with pytest.raises(ConfigError, match="tester/private at revision nowhere"):
        dataset_commit("tester/private", "nowhere")


def test_what_is_recorded_of_a_model_is_its_commit(local_run: PushedRun) -> None:
    repo = local_run.server.repos["models/tester/base"] = Repo(private=False)
    files = {
        path.name: (path.read_bytes(), path.suffix == ".safetensors")
        for path in find_checkpoint(LETTERCRAFT, None, "policy.model").path.iterdir()
        if path.is_file()
    }
    first, second = repo.add(files), repo.add({"README.md": (b"---\nlicense: mit\n---\n", False)})
    present_checkpoint, pinned_checkpoint = (
        find_checkpoint("tester/base", None, "policy.model"),
        find_checkpoint("tester/base", first.oid, "policy.model"),
    )
    assert (present_checkpoint.digest, pinned_checkpoint.digest) == (second.oid, first.oid)
    assert (
        present_checkpoint.fingerprint != pinned_checkpoint.fingerprint
        and present_checkpoint.name == pinned_checkpoint.name == "tester/base"
    )
    with pytest.raises(ConfigError, match="revision v9"):
        find_checkpoint("tester/base", "v9", "policy.model")


def test_a_hub_source_needs_a_whole_id() -> None:
    with pytest.raises(ValueError, match="id"):
        HubPrompts(kind="hub", id="private")
