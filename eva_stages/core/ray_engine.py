"""Row stages on an existing Ray cluster: the same steps, rows, batches and part files as on one machine.

The stage's process reads the batches and writes the part files. Each copy of the steps is a Ray actor that loads them once and processes
one batch at a time. If an actor dies, alone or with its node, its batch goes to the front of the queue and to another actor, and a new
actor starts where there is room. So a lost node costs only the batches that it was processing.

Why not distilabel's RayPipeline or Ray Data: tested on three local nodes with `kill -9` of one node's processes during a stage (distilabel
1.5.3, Ray 2.60), RayPipeline ended successfully with 10 of 200 rows, because the node's queues were lost. Ray Data returned all rows and
computed two batches twice, but loads everything that a driver reads into its object store first.
"""

import math
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from distilabel.pipeline import Pipeline
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from eva_stages.core.cluster import connect, missing
from eva_stages.core.config.engine_config import RayEngine
from eva_stages.core.devices import Devices, present_devices
from eva_stages.core.distil import build_pipeline, write_checked
from eva_stages.core.errors import StageError, describe
from eva_stages.core.parts import BEGIN_MARK, ROW, read_parts
from eva_stages.core.placing import place
from eva_stages.core.rowwork import RowWork
from eva_stages.core.stage import as_data, use_of
from eva_stages.core.tables import count_rows, joined_batches

MOST_DEATHS = 3
"""Number of actor deaths over one batch, or over loading in one seat, after which it counts as their cause."""
POLL_SECONDS = 5.0
Rows = list[dict[str, Any]]


@dataclass
class Batch:
    """Rows to process, and the number of actors that died over them."""

    rows: Rows
    deaths: int = 0


@dataclass
class Seat:
    """A slot for an actor; `deaths` counts successive actors that died in it while loading."""

    actor: Any
    deaths: int = 0


class Steps:
    """An actor: the steps of a row stage in a separate process on some node.

    Errors, `SystemExit` included, are returned as text, because not every exception can be sent.
    """

    def __init__(self, steps: list[Any], folders: dict[str, str], batch_size: int) -> None:
        self._uses = [use_of(step) for step in steps]
        self._folders = {name: Path(folder) for name, folder in folders.items()}
        self._batch_size = batch_size
        self._steps: list[Any] = []

    def load(self) -> None:
        try:
            with tempfile.TemporaryDirectory() as cache, Pipeline(name="copy", cache_dir=cache):
                self._steps = [
                    use.build(self._folders, name=f"step_{index}", input_batch_size=self._batch_size)
                    for index, use in enumerate(self._uses)
                ]
            for step in self._steps:
                step.load()
        except BaseException as error:
            raise StageError(describe(error)) from error

    def process(self, rows: Rows) -> Rows:
        try:
            for step in self._steps:
                rows = [row for output_row in step.process(rows) for row in output_row]
        except BaseException as error:
            raise StageError(describe(error)) from error
        return rows

    def unload(self) -> None:
        for step in self._steps:
            step.unload()


def run_on_ray(engine: RayEngine, work: RowWork) -> int:
    """Run the steps of a row stage on the cluster, over the rows that have no part file yet; returns on how many GPUs. For a child process.

    Raises:
        StageError: with the step's message; or if the cluster cannot hold a copy of the steps, or a batch kills its actors.
    """
    connect(engine.address)
    copies_config = engine.steps.get(work.name, engine.copies)
    placed_steps = place(work.steps, work.places, _devices_of_a_node(), copies=1)
    need = {
        "CPU": copies_config.cpus,
        "GPU": copies_config.gpus if copies_config.gpus is not None else max(share.devices for _, share in placed_steps),
    }
    with tempfile.TemporaryDirectory(dir=work.parts.parent) as cache:
        build_pipeline(work, placed_steps, cache)
    done_rows, _ = read_parts(work.parts)
    folders, prefixes = work.read
    batches_left = math.ceil((count_rows(folders[0]) - len(done_rows)) / work.batch_size)
    batches = (
        Batch([{**row, ROW: int(number)} for number, row in zip(numbers, rows, strict=True)])
        for numbers, rows in joined_batches(folders, prefixes, done_rows, work.batch_size, work.parts.parent)
    )
    data = [as_data(use) for use, _ in placed_steps]
    folder_names = {name: str(folder.resolve()) for name, folder in work.places.items()}

    def hire() -> Any:
        options = {"num_cpus": need["CPU"], "num_gpus": need["GPU"], "max_restarts": 0, "max_task_retries": 0}
        return ray.remote(Steps).options(**options).remote(data, folder_names, work.batch_size)

    def room() -> int:
        return capacity([node["Resources"] for node in ray.nodes() if node["Alive"]], need)

    check_room(need, room())
    copies = min(copies_config.count or room(), batches_left)
    for rows in processed_batches(
        hire, copies, batches, batches_left, lambda: check_room(need, room()), (work.parts.parent / BEGIN_MARK).touch
    ):
        write_checked(work.parts, work.rows, work.required_columns, rows)
    ray.shutdown()
    return math.ceil(copies * need["GPU"])


def processed_batches(
    hire: Callable[[], Any], copies: int, batches: Iterator[Batch], batches_left: int, check: Callable[[], None], begin: Callable[[], None]
) -> Iterator[Rows]:
    """The output rows of all batches, in the order in which the batches finish.

    Args:
        hire: starts an actor.
        batches_left: number of batches.
        check: called while nothing happens; raises where waiting is pointless.
        begin: called when a copy has loaded or has processed a batch.
    """
    waiting: deque[Batch] = deque()
    idle: list[Seat] = []
    busy: dict[Any, tuple[Seat, Batch | None]] = {}
    for _ in range(copies):
        seat = Seat(hire())
        busy[seat.actor.load.remote()] = seat, None
    while batches_left:
        ready, _ = ray.wait(list(busy), timeout=POLL_SECONDS)
        if not ready:
            check()
            continue
        seat, batch = busy.pop(ready[0])
        try:
            rows = ray.get(ready[0])
        except RayTaskError as error:
            raise StageError(str(error.cause)) from error
        except RayError as error:  # the actor died, alone or with its node
            _count_death(batch or seat, error)
            waiting.extendleft([batch] if batch else [])
            ray.kill(seat.actor)
            seat.actor = hire()
            busy[seat.actor.load.remote()] = seat, None
        else:
            seat.deaths = 0
            idle.append(seat)
            begin()
            if batch is not None:
                batches_left -= 1
                yield rows
        while idle and (batch := waiting.popleft() if waiting else next(batches, None)):
            seat = idle.pop()
            busy[seat.actor.process.remote(batch.rows)] = seat, batch
    ray.wait([seat.actor.unload.remote() for seat in idle], num_returns=len(idle), timeout=60)


def _count_death(casualty: Batch | Seat, error: RayError) -> None:
    casualty.deaths += 1
    subject = "a batch" if isinstance(casualty, Batch) else "loading the steps"
    if casualty.deaths == MOST_DEATHS:
        reason = describe(error)
        raise StageError(f"{subject} crashed {MOST_DEATHS} workers in a row (out of memory?): {reason}") from error


def capacity(nodes: list[dict[str, float]], need: dict[str, float]) -> int:
    """How many times the needed resources fit into the nodes, each time within one node."""
    amounts = {name: amount for name, amount in need.items() if amount}
    return sum(min(int(node.get(name, 0) / amount) for name, amount in amounts.items()) for node in nodes)


def check_room(need: dict[str, float], room: int) -> None:
    if not room:
        raise StageError(
            f"no node of the Ray cluster has {need['CPU']:g} CPUs and {need['GPU']:g} GPUs, which a copy of the steps needs; add a "
            "node, or change runtime.engine.copies. Finished batches are saved"
        )


def _devices_of_a_node() -> Devices:
    """The GPUs of the node with the most GPUs, and the memory of one GPU. Nodes are assumed to be equal."""
    gpu_count = max((int(node["Resources"].get("GPU", 0)) for node in ray.nodes() if node["Alive"]), default=0)
    if not gpu_count:
        return Devices()
    devices: Devices = ray.get(ray.remote(num_cpus=0, num_gpus=1)(present_devices).remote())
    return Devices(tuple(map(str, range(gpu_count))), devices.memory)


def check_nodes(engine: RayEngine, token: Path, folders: list[Path]) -> None:
    """Check whether the cluster's nodes can do the work. For a child process.

    Args:
        token: a file in the run folder, for this check only.
        folders: of models and files.

    Raises:
        StageError: names the node and what it lacks, or the resources that no node has.
    """
    connect(engine.address)
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    for copies in (engine.copies, *engine.steps.values()):
        need = {"CPU": copies.cpus, "GPU": copies.gpus or 0}
        check_room(need, capacity([node["Resources"] for node in nodes], need))
    paths = [str(path.resolve()) for path in (token, *folders)]
    lookups = {}
    for node in nodes:
        on_node = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        lookups[node["NodeManagerAddress"], node["NodeID"]] = (
            ray.remote(missing).options(num_cpus=0, scheduling_strategy=on_node).remote(paths)
        )
    for (address, _), answer in lookups.items():
        try:
            lacking = ray.get(answer)
        except RayError as error:
            raise StageError(f"node {address} of the Ray cluster cannot run eva: {describe(error)}") from error
        if lacking:
            raise StageError(
                f"node {address} of the Ray cluster has no {', '.join(lacking)}; runs and models must be on a file system that all nodes "
                "share, at the same path"
            )
    ray.shutdown()
