"""Row stages on a Ray cluster of three local nodes, of which one is killed while it answers and one while it scores."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from eva_stages.core.ray_engine import capacity
from tests.cluster import GATE, add_node, kill_node, local_cluster
from tests.conftest import TINY, events, manifests, overrides, start_eva
from tests.killing import running


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gate")


@pytest.fixture(scope="module")
def cluster(gate: Path, tiny_run: Path) -> Iterator[Cluster]:
    """Comes after the tiny run, so that all its tests run where that is."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(GATE, str(gate))
        environment.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")))))
        with local_cluster(nodes=2) as local:
            yield local


def parts(run: Path, label: str) -> int:
    return len(list(run.glob(f"work/{label}-????????????/parts/*.parquet")))


def test_killed_nodes_cost_their_batches_and_the_artifacts_are_those_of_a_local_run(
    cluster: Cluster, gate: Path, tiny_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    engine = {"kind": "ray", "address": cluster.address, "steps": {"respond": {"count": 1}}}
    changes = TINY | {"trust_code": True, "runtime.engine": engine, "reward": {"kind": "verifier", "function": "tests.cluster:gated_grade"}}
    process = start_eva("run", "quickstart", "--run-dir", str(run), "--until", "0-reward", *overrides(changes))
    wait(process, lambda: parts(run, "0-respond") > 0)
    kill_node(cluster)
    add_node(cluster)
    wait(process, lambda: parts(run, "0-reward") > 0 and (gate / "reached").exists())
    kill_node(cluster)
    (gate / "open").touch()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    cluster_manifests, local = manifests(run), manifests(tiny_run)
    for label in ("0-prompts", "0-respond", "0-reward"):
        assert cluster_manifests[label]["digest"] == local[label]["digest"], label
        assert cluster_manifests[label]["counts"] == local[label]["counts"], label
    assert not {"resume", "failed"} & {event["event"] for event in events(run)}


def wait(process: subprocess.Popen[str], has_reached: Callable[[], bool]) -> None:
    """Wait for a point of a run that has not ended yet."""
    while running(process):
        if has_reached():
            return
    raise AssertionError(process.communicate())


SHARE = """
import json, os, psutil, sys, time
node = next(parent.pid for parent in psutil.Process().parents() if parent.name() == "raylet")
rank, work = int(sys.argv[sys.argv.index("--machine_rank") + 1]), sys.argv[-1]
open(f"{work}/{rank}", "w").write(json.dumps([node, *sys.argv[3:-1]]))
while not os.path.exists(f"{work}/{1 - rank}"):
    time.sleep(0.01)
if rank == 1:
    sys.exit("ValueError: as it happens")
time.sleep(300)
"""


def test_ray_gives_every_machine_a_node_and_one_that_fails_ends_the_training(cluster: Cluster, tmp_path: Path) -> None:
    while len(cluster.worker_nodes) < 2:
        add_node(cluster)
    cluster.wait_for_nodes()
    order = {"command": [sys.executable, "-c", SHARE], "job": [str(tmp_path)], "environment": {}, "cluster": cluster.address}
    order |= {"machines": 2, "gpus": 0, "work": str(tmp_path), "meeting": str(tmp_path / "meeting.json")}
    (tmp_path / "order.json").write_text(json.dumps(order))
    command = [sys.executable, "-m", "eva_stages.solver.machines", str(tmp_path / "order.json")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1, result.stderr
    assert re.search(r"^machine 1 \(.+\): training ended with code 1: ValueError: as it happens; its output is in .+", result.stderr, re.M)
    first, second = (json.loads((tmp_path / str(rank)).read_text()) for rank in (0, 1))
    assert first[0] != second[0], "both ran on one node"
    assert first[1:] == second[1:] and [first[1], first[3]] == ["--main_process_ip", "--main_process_port"]


def test_copies_fit_into_nodes_one_by_one() -> None:
    nodes = [{"CPU": 8.0, "GPU": 4.0}, {"CPU": 3.0, "GPU": 8.0}, {"CPU": 64.0}]
    assert capacity(nodes, {"CPU": 2, "GPU": 2}) == 2 + 1
    assert capacity(nodes, {"CPU": 2, "GPU": 0}) == 4 + 1 + 32
    assert capacity(nodes, {"CPU": 1, "GPU": 0.5}) == 8 + 3
    assert capacity(nodes, {"CPU": 65, "GPU": 0}) == 0
