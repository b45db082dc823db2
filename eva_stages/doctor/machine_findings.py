"""Cores, memory, limits, disks, file locks, and the token of the Hub. Nothing is sent anywhere."""

import errno
import fcntl
import multiprocessing
import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from eva_stages.core.devices import cpu_cores
from eva_stages.core.sockets import LONGEST
from eva_stages.core.store import NOT_LINKABLE, default_store
from eva_stages.doctor.findings import GIB, Row, State, size_text

CGROUPS = Path("/sys/fs/cgroup")
SHARED_MEMORY = Path("/dev/shm")
LITTLE_SPACE, NO_SPACE = 10 * GIB, GIB
FEW_FILES, FEW_PROCESSES = 1024, 1024
THREADS = "OMP_NUM_THREADS"


def machine_rows(folder: Path) -> Iterator[Row]:
    """What this machine gives to a process. `folder`: where runs are written."""
    yield _cores_row()
    yield _memory_row()
    yield _files_row()
    yield _processes_row()
    yield _shared_memory_row()
    yield from _disk_rows(folder)
    yield from _lock_rows(folder)
    yield _token_row()


def cgroup_limit(file: str) -> list[list[str]]:
    """The words of a limit file of this process's control group and of the groups around it, as far as they are limited."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    path = next((line.removeprefix("0::").strip("/") for line in lines if line.startswith("0::")), "")
    limits = []
    for folder in (CGROUPS / path, *(CGROUPS / path).parents):
        if folder.is_relative_to(CGROUPS):
            with suppress(OSError):
                limits.append((folder / file).read_text(encoding="utf-8").split())
    return [words for words in limits if words and words[0] != "max"]


def _cores_row() -> Row:
    """Cores, and a limit of the container, which torch does not know: it starts a thread per core."""
    cores, total, threads = cpu_cores(), os.cpu_count() or 1, os.environ.get(THREADS)
    shares = [int(words[0]) / int(words[1]) for words in cgroup_limit("cpu.max")]
    value = f"{cores} of {total}" + (f", {THREADS}={threads}" if threads else "")
    if shares and min(shares) < cores and not threads:
        core_count = max(1, int(min(shares)))
        value += f", but the container may use {min(shares):g} at a time, which torch does not know"
        return Row("CPU cores", State.WARNING, value, f"export {THREADS}={core_count}")
    return Row("CPU cores", State.OK, value)


def _memory_row() -> Row:
    memory = psutil.virtual_memory()
    limits = [int(words[0]) for words in cgroup_limit("memory.max")]
    value = f"{size_text(memory.available)} of {size_text(memory.total)} free"
    if limits and min(limits) < memory.total:
        value += f"; the container may use {size_text(min(limits))}"
    if min([memory.available, *limits]) < 2 * GIB:
        return Row("memory", State.WARNING, value, "loading the libraries alone takes 1 GiB: end other programs, or raise the limit")
    return Row("memory", State.OK, value)


def _files_row() -> Row:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < FEW_FILES:
        return Row("open files", State.WARNING, f"at most {soft} (ulimit -n)", f"ulimit -n {hard if hard > soft else 65536}")
    return Row("open files", State.OK, f"at most {_limit_text(soft)} (ulimit -n)")


def _processes_row() -> Row:
    limits = [limit for limit in (resource.getrlimit(resource.RLIMIT_NPROC)[0],) if limit >= 0]
    limits += [int(words[0]) for words in cgroup_limit("pids.max")]
    if limits and min(limits) < FEW_PROCESSES:
        fix = f"ulimit -u {4 * FEW_PROCESSES}; for a container, docker run --pids-limit -1"
        return Row("processes", State.WARNING, f"at most {min(limits)}, threads included", fix)
    return Row("processes", State.OK, f"at most {_limit_text(min(limits, default=-1))} (ulimit -u), threads included")


def _limit_text(limit: int) -> str:
    return "any number" if limit < 0 else f"{limit:,}"


def _shared_memory_row() -> Row:
    """Semaphores are needed by every stage, room by training on several GPUs, vLLM and Ray."""
    fix = "docker run --shm-size=8g (or --ipc=host)"
    try:
        multiprocessing.Lock()
    except OSError as error:
        why = error.strerror or error
        return Row("shared memory", State.ERROR, f"no semaphores in {SHARED_MEMORY}: {why}", f"make it writable: {fix}")
    if not SHARED_MEMORY.is_dir():
        return Row("shared memory", State.OK, "semaphores work")
    usage = shutil.disk_usage(SHARED_MEMORY)
    value = f"{size_text(usage.free)} of {size_text(usage.total)} free in {SHARED_MEMORY}"
    if usage.free < GIB:
        return Row("shared memory", State.WARNING, f"{value}; several GPUs, vLLM and Ray need more", fix)
    return Row("shared memory", State.OK, value)


def existing_folder(path: Path) -> Path:
    """A folder, or the next one above it that exists."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())


def _disk_rows(folder: Path) -> Iterator[Row]:
    from huggingface_hub.constants import HF_HUB_CACHE

    store = default_store(folder / "run")
    yield _disk_row("runs", folder, "eva gc removes artifacts that no run needs; --run-dir puts a run elsewhere")
    if store.is_dir() and store.stat().st_dev != existing_folder(folder).stat().st_dev:
        yield _disk_row("store of runs", store, "--store puts it elsewhere")
    yield _disk_row("Hub cache", Path(HF_HUB_CACHE), "set HF_HOME to a folder on a larger disk")
    temporary_folder = tempfile.gettempdir()
    length = len(os.fsencode(temporary_folder))
    if length > LONGEST:
        value = f"{temporary_folder} has {length} bytes, too long for sockets (at most {LONGEST})"
        yield Row("TMPDIR", State.WARNING, f"{value}; eva will use /tmp", "export TMPDIR=/tmp, or another short path")
    else:
        yield _disk_row("TMPDIR", Path(temporary_folder), "set TMPDIR to a folder on a larger disk")


def _disk_row(name: str, folder: Path, fix: str) -> Row:
    """Whether a folder, which may not exist yet, can be written to and has room."""
    place = existing_folder(folder)
    usage = shutil.disk_usage(place)
    value = f"{size_text(usage.free)} of {size_text(usage.total)} free in {folder}"
    if not os.access(place, os.W_OK | os.X_OK):
        return Row(name, State.ERROR, f"{place} cannot be written to", f"make it writable; {fix}")
    if usage.free < LITTLE_SPACE:
        state = State.ERROR if usage.free < NO_SPACE else State.WARNING
        return Row(name, state, f"only {value}", fix)
    return Row(name, State.OK, value)


def _lock_rows(folder: Path) -> Iterator[Row]:
    """Whether the file system of the runs locks files, so that two commands do not write one run, and links them, so that runs share."""
    place = existing_folder(folder)
    try:
        with tempfile.TemporaryDirectory(dir=place, prefix=".eva-doctor-") as name:
            first, second = Path(name) / "first", Path(name) / "second"
            yield _lock_row(first)
            yield _link_row(first, second)
    except OSError as error:
        yield Row("file locks", State.ERROR, f"{place} cannot be written to: {error.strerror}", "make it writable, or use --run-dir")


def _lock_row(file: Path) -> Row:
    fix = "put runs on another file system (--run-dir), or mount this one with locks"
    with file.open("w", encoding="utf-8") as stream, file.open("r", encoding="utf-8") as other_stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return Row("file locks", State.ERROR, f"not on the file system of the runs: {error.strerror}", fix)
        try:
            fcntl.flock(other_stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return Row("file locks", State.OK, "work on the file system of the runs")
    return Row("file locks", State.ERROR, "have no effect on the file system of the runs", fix)


def _link_row(file: Path, link: Path) -> Row:
    try:
        os.link(file, link)
    except OSError as error:
        if error.errno not in NOT_LINKABLE:
            return Row("hard links", State.ERROR, f"fail on the file system of the runs: {errno.errorcode.get(error.errno or 0)}")
        value = "not on the file system of the runs: runs that share artifacts copy them"
        return Row("hard links", State.WARNING, value, "nothing, if the disk has room; or put runs elsewhere (--run-dir)")
    return Row("hard links", State.OK, "work: runs share artifacts without copies")


def _token_row() -> Row:
    """Whether there is a token of the Hub. It is not shown."""
    from huggingface_hub import get_token

    if get_token() is None:
        return Row("Hub token", State.ABSENT, "only needed for gated models and for publishing", "hf auth login, or export HF_TOKEN")
    return Row("Hub token", State.OK, f"present ({'HF_TOKEN' if os.environ.get('HF_TOKEN') else 'of hf auth login'}), not shown")
