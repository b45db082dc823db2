"""A Ray cluster of several nodes on one machine, whose nodes can be killed; and a reward that a test can block."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from ray.cluster_utils import Cluster

from eva_stages.core.rows import Message, last_user_text
from eva_stages.lettercraft.language import grade, parse
from tests.conftest import TINY

SOON = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 3,
}
"""Ray settings that detect a lost node within two seconds."""
GATE = "EVA_TEST_GATE"
MEMORY = 80_000_000
FIRST_BATCH = int(TINY["runtime.rows_per_part"]) * int(TINY["solver.responses"])

_calls = 0


@contextmanager
def local_cluster(nodes: int) -> Iterator[Cluster]:
    """A head node without CPUs and `nodes` nodes of one CPU each."""
    head = {"num_cpus": 0, "_system_config": SOON, "object_store_memory": MEMORY, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=False)
    try:
        for _ in range(nodes):
            add_node(cluster)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        for node in cluster.list_all_nodes():
            cluster.remove_node(node, allow_graceful=False)
        cluster.shutdown()


def add_node(cluster: Cluster) -> None:
    cluster.add_node(num_cpus=1, object_store_memory=MEMORY)


def processes(node: Any) -> list[psutil.Process]:
    """A node's raylet and all its workers."""
    raylets = [psutil.Process(info.process.pid) for info in node.all_processes["raylet"]]
    return [process for raylet in raylets for process in (raylet, *raylet.children(recursive=True))]


def works(node: Any) -> bool:
    """Whether steps run on the node."""
    try:
        return any("ray::Steps" in " ".join(process.cmdline()) for process in processes(node))
    except psutil.NoSuchProcess:  # a process ended during the query
        return False


def kill_node(cluster: Cluster) -> None:
    """Send SIGKILL to all processes of a node on which steps run."""
    node = next(node for node in cluster.worker_nodes if works(node))
    for process in processes(node):
        process.kill()
    cluster.remove_node(node, allow_graceful=False)


def gated_grade(messages: list[Message], response: str, reference: str | None) -> float:
    """Lettercraft's grade. After its first batch (of the tiny run) a process waits until the gate is open."""
    global _calls
    _calls += 1
    gate = Path(os.environ[GATE])
    if _calls > FIRST_BATCH:
        (gate / "reached").touch()
        while not (gate / "open").exists():
            threading.Event().wait(0.01)
    instruction = parse(last_user_text(messages))
    assert instruction is not None
    return grade(instruction, response)
