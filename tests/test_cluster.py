"""Row stages on a Ray cluster of three local nodes, of which one is killed while it answers and one while it scores."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from eva_stages.core.ray_engine import capacity
from tests.cluster import GATE, add_node, kill_node, local_cluster
from tests.conftest import TINY, events, manifests, overrides, start_eva
from tests.test_kill import running


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gate")


@pytest.fixture(scope="module")
def cluster(gate: Path) -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(GATE, str(gate))
        environment.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")))))
        with local_cluster(nodes=2) as made:
            yield made


def parts(run: Path, label: str) -> int:
    return len(list(run.glob(f"work/{label}-????????????/parts/*.parquet")))


def test_killed_nodes_cost_their_batches_and_the_artifacts_are_those_of_a_local_run(
    cluster: Cluster, gate: Path, tiny_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    engine = {"kind": "ray", "address": cluster.address, "steps": {"respond": {"count": 1}}}
    changes = TINY | {"runtime.engine": engine, "reward": {"kind": "verifier", "function": "tests.cluster:held"}}
    process = start_eva("run", "quickstart", "--run-dir", str(run), "--until", "0-reward", *overrides(changes))
    wait(process, lambda: parts(run, "0-respond") > 0)
    kill_node(cluster)
    add_node(cluster)
    wait(process, lambda: parts(run, "0-reward") > 0 and (gate / "reached").exists())
    kill_node(cluster)
    (gate / "open").touch()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    made, local = manifests(run), manifests(tiny_run)
    for label in ("0-prompts", "0-respond", "0-reward"):
        assert made[label]["digest"] == local[label]["digest"], label
        assert made[label]["counts"] == local[label]["counts"], label
    assert not {"resume", "failed"} & {event["event"] for event in events(run)}


def wait(process: subprocess.Popen[str], reached) -> None:
    while running(process):
        if reached():
            return
    raise AssertionError(process.communicate())


def test_copies_fit_into_nodes_one_by_one() -> None:
    nodes = [{"CPU": 8.0, "GPU": 4.0}, {"CPU": 3.0, "GPU": 8.0}, {"CPU": 64.0}]
    assert capacity(nodes, {"CPU": 2, "GPU": 2}) == 2 + 1
    assert capacity(nodes, {"CPU": 2, "GPU": 0}) == 4 + 1 + 32
    assert capacity(nodes, {"CPU": 1, "GPU": 0.5}) == 8 + 3
    assert capacity(nodes, {"CPU": 65, "GPU": 0}) == 0
