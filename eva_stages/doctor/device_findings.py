"""GPUs, their driver, and what torch and accelerate can do with them. CUDA is not started, and torch is not imported."""

import ctypes
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import NamedTuple

from eva_stages.core.devices import has_accelerator, visible
from eva_stages.core.manifests import package_version
from eva_stages.doctor.findings import Row, State
from eva_stages.solver.launch_file import LaunchFile, read_launch_file

QUERY = "index,name,memory.total,memory.free,driver_version"
QUERY_SECONDS = 20
BUSY = 0.5
"""Share of free memory below which something else probably uses a device."""
VARIABLE = "CUDA_VISIBLE_DEVICES"


class GPU(NamedTuple):
    """A device as the driver reports it; memory in MiB, None where it shares the machine's."""

    number: str
    name: str
    total: int | None
    free: int | None
    driver: str


class GPUs(NamedTuple):
    """The devices of this machine, and why they could not be listed."""

    devices: tuple[GPU, ...] = ()
    fault: str = ""

    @property
    def visible_count(self) -> int:
        """How many of them this process may use."""
        return len([name for name in visible(os.environ.get(VARIABLE), len(self.devices)) if name])


def read_gpus() -> GPUs:
    """The devices that nvidia-smi lists."""
    if which("nvidia-smi") is None:
        return GPUs()
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=QUERY_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return GPUs(fault=f"nvidia-smi: {type(error).__name__}")
    if result.returncode:
        return GPUs(fault=" ".join((result.stdout + result.stderr).split())[:200])
    return GPUs(tuple(_gpu(line) for line in result.stdout.splitlines() if line.count(",") >= 4))


def _gpu(line: str) -> GPU:
    number, name, total, free, driver = (cell.strip() for cell in line.split(",", 4))
    return GPU(number, name, int(total) if total.isdecimal() else None, int(free) if free.isdecimal() else None, driver)


def device_rows(gpus: GPUs) -> Iterator[Row]:
    """The devices, the driver, torch, flash attention, and which launch files fit."""
    yield from _gpu_rows(gpus)
    yield _torch_row(gpus)
    version = package_version("flash-attn")
    purpose = "faster attention on GPUs; without it eva uses torch's own (sdpa)"
    install = "pip install flash-attn --no-build-isolation" if gpus.devices else ""
    yield Row("flash attention", State.OK, f"flash-attn {version}") if version else Row("flash attention", State.ABSENT, purpose, install)
    yield _launch_row(gpus)


def _gpu_rows(gpus: GPUs) -> Iterator[Row]:
    if gpus.fault and has_accelerator():
        yield Row(
            "GPU", State.ERROR, f"the driver does not answer: {gpus.fault}", "run nvidia-smi; reinstall the driver, or restart the machine"
        )
        return
    if not gpus.devices and has_accelerator():
        yield Row(
            "GPU",
            State.WARNING,
            "there is one, and nvidia-smi cannot be run, so eva doctor knows no more about it",
            "see eva doctor --deep",
        )
        return
    if not gpus.devices:
        fix = "a container needs `docker run --gpus all`" if which("nvidia-smi") else ""
        yield Row("GPU", State.ABSENT, "eva samples and trains on the CPU: fine for small models", fix)
        return
    for gpu in gpus.devices:
        if gpu.total is None or gpu.free is None:
            yield Row(f"GPU {gpu.number}", State.OK, gpu.name)
            continue
        memory = f"{gpu.name}, {gpu.free:,} of {gpu.total:,} MiB free"
        if gpu.free < BUSY * gpu.total:
            yield Row(f"GPU {gpu.number}", State.WARNING, memory, f"nvidia-smi shows what uses it; {VARIABLE} selects other GPUs")
        else:
            yield Row(f"GPU {gpu.number}", State.OK, memory)
    if VARIABLE in os.environ:
        count, fix = gpus.visible_count, "" if gpus.visible_count else f"unset {VARIABLE}"
        value = f"{os.environ[VARIABLE] or '(empty)'}: eva uses {count} of {len(gpus.devices)} GPUs"
        yield Row(VARIABLE, State.OK if count else State.WARNING, value, fix)


def _torch_row(gpus: GPUs) -> Row:
    """Whether torch was built for these devices and this driver."""
    version, build, driver = package_version("torch"), torch_cuda(), driver_cuda()
    if version is None:
        return Row("torch", State.ERROR, "is not installed", "pip install torch")
    if not gpus.devices:
        return Row("torch", State.OK, f"{version}, built for {f'CUDA {build}' if build else 'the CPU'}")
    if build is None:
        plain = version.partition("+")[0]
        fix = f"pip install --force-reinstall torch=={plain} (its build for CUDA)"
        return Row("torch", State.WARNING, f"{version} was built without CUDA, so eva uses no GPU", fix)
    facts = f"{version}, built for CUDA {build}; driver {gpus.devices[0].driver}"
    if driver is None:
        return Row("torch", State.WARNING, f"{facts}, whose library libcuda.so.1 cannot be loaded", "see eva doctor --deep")
    facts += f" (CUDA {driver})"
    if int(driver.split(".")[0]) < int(build.split(".")[0]):
        return Row("torch", State.ERROR, facts, "update the driver, or install a torch that was built for its CUDA version")
    return Row("torch", State.OK, facts)


def torch_cuda() -> str | None:
    """The CUDA version that the installed torch was built for, from its file of versions; None for a build without CUDA."""
    package = find_spec("torch")
    folders = package.submodule_search_locations if package else None
    file = Path(folders[0]) / "version.py" if folders else None
    found_version = (
        re.search(r"^cuda[^=\n]*= *'([\d.]+)'", file.read_text(encoding="utf-8"), re.MULTILINE) if file and file.is_file() else None
    )
    return found_version[1] if found_version else None


def driver_cuda() -> str | None:
    """The newest CUDA version that the driver knows; None if its library cannot be loaded."""
    number = ctypes.c_int()
    try:
        code = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(number))
    except OSError:
        return None
    return None if code else f"{number.value // 1000}.{number.value % 1000 // 10}"


def packaged_launch_files() -> list[LaunchFile]:
    folder = Path(str(resources.files("configs") / "accelerate"))
    return [read_launch_file(path.stem) for path in sorted(folder.glob("*.yaml"))]


def missing_for(file: LaunchFile, gpus: int) -> str:
    """Why a launch file cannot be used on a machine with so many GPUs; empty if it can."""
    if file.gpus_per_machine > gpus:
        return f"needs {file.gpus_per_machine} GPU{'s' if file.gpus_per_machine > 1 else ''}"
    if file.distributed_type == "DEEPSPEED" and package_version("deepspeed") is None:
        return "needs deepspeed"
    return ""


def _launch_row(gpus: GPUs) -> Row:
    """Which of accelerate's launch files that eva has can be used here."""
    if (version := package_version("accelerate")) is None:
        return Row("launch files", State.ERROR, "accelerate is not installed", "pip install accelerate")
    missing = {file.path.stem: missing_for(file, gpus.visible_count) for file in packaged_launch_files() if file.machines == 1}
    fitting: Sequence[str] = [name for name, reason in missing.items() if not reason]
    unfit = "; ".join(f"{name} {reason}" for name, reason in missing.items() if reason)
    fix = "for another number of GPUs, copy one and change num_processes" if gpus.visible_count > 1 and unfit else ""
    return Row("launch files", State.OK, f"accelerate {version} can use {', '.join(fitting)}{f' ({unfit})' if unfit else ''}", fix)
