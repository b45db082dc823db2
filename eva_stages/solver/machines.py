"""Starts a training on several machines of a Ray cluster: `python -m eva_stages.solver.machines ORDER.json`.

Each machine's share (`solver/machine.py`) is a process in a Ray task, each on a separate node with the GPUs it needs. When one fails,
this process ends with its message, and Ray ends the others.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from eva_stages.core.cluster import connect
from eva_stages.core.errors import StageError
from eva_stages.core.process_ending import call_after_end, ending
from eva_stages.solver.machine import ADDRESS, MACHINE, launcher

REPORT_SECONDS = 30


def share(order_file: str, rank: int) -> str:
    """Run a machine's share; returns its error message, empty if it succeeded."""
    command = [sys.executable, "-m", "eva_stages.solver.machine", order_file, str(rank)]
    environment = {**os.environ, ADDRESS: ray.util.get_node_ip_address()}
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment, encoding="utf-8", errors="replace")
    lines = result.stdout.strip().splitlines()
    return "" if result.returncode == 0 else (lines or [f"{MACHINE}{rank} {ending(result.returncode)}"])[-1]


def main(order_file: str) -> None:
    """Run all shares.

    Raises:
        SystemExit: with a message, if a share fails or the cluster has no room.
    """
    order = json.loads(Path(order_file).read_text(encoding="utf-8"))
    call_after_end(launcher(), lambda: os._exit(1))  # Ray then ends the tasks of this process
    try:
        connect(order["cluster"])
        _check_nodes(order["machines"], order["gpus"])
    except StageError as error:
        sys.exit(f"Error: {error}")
    group = placement_group([{"CPU": 1, "GPU": order["gpus"]}] * order["machines"], strategy="STRICT_SPREAD")
    if not ray.wait([group.ready()], timeout=REPORT_SECONDS)[0]:
        print(f"waiting for {order['machines']} machines with {order['gpus']} free GPUs each", flush=True)
    ray.get(group.ready())
    waiting = {}
    for rank in range(order["machines"]):
        where = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank)
        task = ray.remote(share).options(num_cpus=1, num_gpus=order["gpus"], max_retries=0, scheduling_strategy=where)
        waiting[task.remote(order_file, rank)] = rank
    while waiting:
        (finished_task,), _ = ray.wait(list(waiting))
        rank = waiting.pop(finished_task)
        try:
            failure = ray.get(finished_task)
        except RayError as error:
            failure = f"{MACHINE}{rank} was lost: {' '.join(str(error).split())}"
        if failure:
            sys.exit(failure)


def _check_nodes(machines: int, gpus: int) -> None:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fit = sum(node.get("CPU", 0) >= 1 and node.get("GPU", 0) >= gpus for node in nodes)
    if fit < machines:
        raise StageError(
            f"the launch file has {machines} machines of {gpus} GPUs each, and {fit} nodes of the Ray cluster are large enough; "
            "add nodes, or use a launch file with fewer machines"
        )


if __name__ == "__main__":
    main(sys.argv[1])
