"""Accelerators: which are visible, how many of them a model needs, and which of them a process takes.

A step with several replicas of its model runs in several processes. Each takes the next free devices before anything uses one, by a
count that forked processes share, and sees no other devices afterwards.
"""

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eva_stages.core.errors import ConfigError

ROOM = 0.6
"""Share of a device's memory that weights may fill; the rest is for the key-value cache and activations."""
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

DRIVERS = ("nvidia[0-9]*", "kfd", "dxg")
"""Files in /dev of a machine with an accelerator: NVIDIA's, AMD's, or either under WSL."""
MEMORY_QUERY = "import torch; print(*(torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())))"

_devices_taken: Any = multiprocessing.Value("i", 0)
_sharing = 1


class Devices(NamedTuple):
    """The visible devices, and the bytes of memory of the smallest."""

    ids: tuple[str, ...] = ()
    memory: int = 0


class Model(NamedTuple):
    """A checkpoint's size: bytes of its weights on an accelerator, and its attention heads."""

    weights: int
    heads: int


class Share(NamedTuple):
    """Copies of a model, and the devices that each is spread over (0 on CPU)."""

    copies: int
    devices: int


def visible(variable: str | None, count: int) -> tuple[str, ...]:
    """Ids of the devices, from `CUDA_VISIBLE_DEVICES` and the number that the driver lets us see."""
    if variable is None:
        return tuple(map(str, range(count)))
    return tuple(device.strip() for device in variable.split(","))[:count]


def cpu_cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_devices() -> tuple[str, ...]:
    import torch

    return visible(os.environ.get("CUDA_VISIBLE_DEVICES"), torch.cuda.device_count())


def has_accelerator() -> bool:
    """Whether this machine has an accelerator that torch may use."""
    return sys.platform == "darwin" or any(driver_file for pattern in DRIVERS for driver_file in Path("/dev").glob(pattern))


def present_devices() -> Devices:
    """The devices of this machine. Queried in a subprocess: initialising CUDA here would stop forked children from using it."""
    if sys.platform == "darwin" or not has_accelerator():
        return Devices()
    result = subprocess.run([sys.executable, "-c", MEMORY_QUERY], stdout=subprocess.PIPE, text=True, check=True, encoding="utf-8")
    memory = [int(amount) for amount in result.stdout.split()]
    return Devices(visible(os.environ.get("CUDA_VISIBLE_DEVICES"), len(memory)), min(memory, default=0))


def read_model(folder: Path, dtype: str) -> Model:
    """A checkpoint's size once its weights are of type `dtype`; `auto` is two bytes per weight, as on accelerators."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) if (folder / "config.json").is_file() else {}
    inner = {**config, **config.get("text_config", {})}
    stored_bytes = BYTES.get(inner.get("dtype") or inner.get("torch_dtype") or "", 2)
    on_disk = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return Model(on_disk * BYTES.get(dtype, 2) // stored_bytes, inner.get("num_attention_heads") or 0)


def share_out(model: Model, devices: int, memory: int, devices_per_copy: int | None = None, copies: int | None = None) -> Share:
    """How often a model is loaded and over how many devices each copy is spread; arguments that are None are chosen here.

    Args:
        devices: how many there are; none = one copy on the CPU unless `copies` are asked for.
        memory: bytes of each.
        devices_per_copy: None: the smallest power of two on which the weights fill no more than `ROOM` of the memory
            and that divides the attention heads.
        copies: chosen, as many as there are devices for.

    Raises:
        ConfigError: if too few devices are available.
    """
    if not devices:
        return Share(copies or 1, 0)
    if devices_per_copy is None:
        most_devices = devices // (copies or 1)
        sizes = [size for power in range(devices.bit_length()) if (size := 2**power) <= most_devices and model.heads % size == 0] or [1]
        devices_per_copy = next((size for size in sizes if model.weights <= ROOM * memory * size), sizes[-1])
    wanted_devices = devices_per_copy * (copies or 1)
    if wanted_devices > devices:
        raise ConfigError(
            [
                f"runtime: {copies or 1} replicas on {devices_per_copy} devices each need {wanted_devices} devices, but {devices} are "
                "available; lower replicas or tensor_parallel, or omit them to choose them automatically"
            ]
        )
    return Share(copies or devices // devices_per_copy, devices_per_copy)


def next_devices(ids: Sequence[str], taken_count: int, size: int) -> list[str]:
    """The next `size` devices after those that are taken; they start over when all are taken."""
    return [ids[(taken_count + place) % len(ids)] for place in range(size)]


def free_devices() -> None:
    """Restart the count of taken devices, before this process starts others."""
    global _devices_taken
    _devices_taken = multiprocessing.Value("i", 0)


def share_cores(processes: int) -> None:
    """Divide the cores among the processes that this one is about to start. If each used all cores they would wait for each other."""
    global _sharing
    _sharing = processes


def take_cores() -> None:
    """Limit torch in this process to its share of the cores."""
    global _sharing
    import torch

    if _sharing > 1:  # after the fork: torch's threads do not survive it
        torch.set_num_threads(max(1, torch.get_num_threads() // _sharing))
    _sharing = 1


def take_devices(size: int) -> None:
    """Make only the next `size` devices visible to this process, unless it already uses one."""
    import torch

    ids = visible_devices()
    if len(ids) <= size or torch.cuda.is_initialized():
        return
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(next_devices(ids, take_turn(size), size))


def take_turn(size: int) -> int:
    """How many devices the processes of this stage have taken before these `size`."""
    with _devices_taken.get_lock():
        earlier_devices: int = _devices_taken.value
        _devices_taken.value = earlier_devices + size
    return earlier_devices
