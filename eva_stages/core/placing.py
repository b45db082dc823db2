"""Placement of the models of a stage's steps: how many copies of each step, on how many devices each.

A model is a `Use` with `replicas` among its runtime settings. What the recipe leaves open is chosen from the size of the model
and the available devices; the returned steps have every setting filled in.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from eva_stages.core.devices import Devices, Model, Share, read_model, share_out
from eva_stages.core.stage import Input, Use

REPLICAS, TENSOR_PARALLEL, DEVICE = "replicas", "tensor_parallel", "device"
BALANCED_DEVICE = "balanced"
SPREADABLE = ("auto", "cuda", BALANCED_DEVICE)


def place(steps: Sequence[Use], folders: Mapping[str, Path], devices: Devices, copies: int | None = None) -> list[tuple[Use, Share]]:
    """The steps with their models placed. Models of different steps work at the same time, so they share the devices out.

    Args:
        copies: of every step; overrides the recipe.

    Raises:
        ConfigError: if the recipe asks for more devices than there are.
    """
    models = [next(_models(step), None) for step in steps]
    count = len(devices.ids) // max(1, sum(model is not None for model in models))
    own_devices = Devices(devices.ids[: max(count, min(1, len(devices.ids)))], devices.memory)
    return [
        (step, Share(1, 0)) if model is None else _placed_step(step, model, folders, own_devices, copies or model.runtime[REPLICAS])
        for step, model in zip(steps, models, strict=True)
    ]


def models_on_cores(placed_steps: Sequence[tuple[Use, Share]]) -> int:
    """How many copies of models work on the processor at the same time."""
    return sum(share.copies for step, share in placed_steps if not share.devices and next(_models(step), None) is not None)


def fit_one_process(placed_steps: Sequence[tuple[Use, Share]]) -> bool:
    """Whether one process can run all steps: their models are the same one, in one copy, without an accelerator or an engine of its own."""
    models = [model for step, _ in placed_steps for model in _models(step)]
    return (
        len({str(model.arguments.get("model", number)) for number, model in enumerate(models)}) <= 1
        and all(share.copies == 1 and not share.devices for _, share in placed_steps)
        and not any(TENSOR_PARALLEL in model.runtime for model in models)
    )


def _placed_step(step: Use, model: Use, folders: Mapping[str, Path], devices: Devices, copies: int | None) -> tuple[Use, Share]:
    runtime = model.runtime
    device = runtime.get(DEVICE, "auto")
    if device not in SPREADABLE and not device.startswith(f"{BALANCED_DEVICE}:"):  # the recipe names the device
        return step, Share(copies or 1, 0)
    devices_per_copy = runtime.get(TENSOR_PARALLEL)
    if device.startswith(BALANCED_DEVICE):
        devices_per_copy = int(device.partition(":")[2] or max(1, len(devices.ids) // (copies or 1)))
    size = Model(0, 0)
    if devices.ids and devices_per_copy is None:
        size = read_model(_folder(model, folders), str(model.arguments.get("dtype", "auto")))
    size = size if TENSOR_PARALLEL in runtime else size._replace(heads=0)  # only tensor parallelism divides heads
    share = share_out(size, len(devices.ids), devices.memory, devices_per_copy, copies)
    if TENSOR_PARALLEL in runtime:
        settings = {TENSOR_PARALLEL: share.devices or devices_per_copy or 1}
    else:
        settings = {DEVICE: f"{BALANCED_DEVICE}:{share.devices}"} if share.devices > 1 else {}
    return _with_placed_model(step, model, replace(model, runtime={**runtime, REPLICAS: share.copies, **settings})), share


def _folder(model: Use, folders: Mapping[str, Path]) -> Path:
    argument = model.arguments["model"]
    return folders[argument.name] if isinstance(argument, Input) else Path(argument)


def _models(value: Any) -> Iterator[Use]:
    match value:
        case Use() if REPLICAS in value.runtime:
            yield value
        case Use():
            for argument in value.arguments.values():
                yield from _models(argument)


def _with_placed_model(value: Any, model: Use, placed_model: Use) -> Any:
    """`value` with `placed_model` where `model` was."""
    if value is model:
        return placed_model
    if not isinstance(value, Use):
        return value
    return replace(value, arguments={name: _with_placed_model(argument, model, placed_model) for name, argument in value.arguments.items()})
