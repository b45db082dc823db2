"""The store: artifacts that runs share, each under its stage's fingerprint, and the work in progress on them.

    stages: <iteration>-<stage>-<fp12>        complete artifacts
    work:   <iteration>-<stage>-<fp12>        the attempt at a stage; another run resumes it if its process was killed
            <iteration>-<stage>-<fp12>.lock   held by the process that computes the stage

A run hard-links the artifacts that it uses into its own folder (on another file system: copies them). So a run folder is complete in
itself, and can be copied, moved or deleted without harm to another run; deleting the store costs only what runs would have shared.
Machines that share a store need a file system on which flock locks files for all of them (NFS as Linux mounts it).
"""

import errno
import fcntl
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from eva_stages.core.durable import sync, writing_to
from eva_stages.core.manifests import MANIFEST

STORE = ".store"
"""The default store's name, beside the runs that share it."""
WORK = "work"
NOT_LINKABLE = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_linking = threading.Lock()
"""Held by a thread that links an artifact: all stages of a run use the same temporary folder."""


class Store:
    """The folder of a store; a run that shares nothing is its own store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stages = root / "stages"
        self.work = root / WORK

    def create(self) -> None:
        self.stages.mkdir(parents=True, exist_ok=True)
        self.work.mkdir(exist_ok=True)

    def has(self, name: str) -> bool:
        return (self.stages / name / MANIFEST).is_file()

    def put(self, name: str, ready: Path) -> None:
        """Make a complete folder below `work` the artifact of that name."""
        ready.rename(self.stages / name)
        sync(self.stages)

    def remove(self, name: str) -> None:
        """Delete an artifact; runs that use it have their own links. The caller holds the stage's lock."""
        if (self.stages / name).is_dir():
            removed_folder = self.work / f"{name}.removed"
            shutil.rmtree(removed_folder, ignore_errors=True)
            (self.stages / name).rename(removed_folder)  # atomically, so that no reader finds an incomplete artifact
            shutil.rmtree(removed_folder)

    @contextmanager
    def lock(
        self, name: str, purpose: str, report_holder: Callable[[str], None] | None = None, wait: bool = True
    ) -> Iterator[TextIO | None]:
        """Hold the lock of a stage; the kernel releases it when the processes that hold it have ended, however they end.

        Args:
            purpose: tells those that wait what the lock is held for.
            report_holder: called with the holder of the lock, if another process has it.
            wait: for the lock; False: yield None if another process has it.
        """
        path = self.work / f"{name}.lock"
        while True:
            with writing_to(self.root):
                self.create()  # it may have been deleted since the run started
                stream = path.open("a+", encoding="utf-8")
            with stream:
                if holder := lock_holder(stream):
                    if report_holder is not None:
                        report_holder(holder)
                    if not wait:
                        yield None
                        return
                    fcntl.flock(stream, fcntl.LOCK_EX)
                if not _is_file(stream, path):
                    continue  # the holder before us deleted it
                write_owner(stream, f" {purpose}")
                try:
                    yield stream
                finally:
                    path.unlink(missing_ok=True)
                return


def default_store(root: Path) -> Path:
    """The store of a run: the store that it used before, or `.store` beside it, which all runs of the folder share.

    If the parent folder is on another file system (a mounted run folder) or not writable, the run is its own store.
    """
    if (recorded_root := recorded_store(root)) is not None and (recorded_root / WORK).is_dir():
        return recorded_root
    parent = root.resolve().parent
    if (parent / STORE).is_dir():
        usable = os.access(parent / STORE, os.W_OK)
    else:
        ancestor = next(folder for folder in (parent, *parent.parents) if folder.is_dir())
        usable = os.access(ancestor, os.W_OK)
    same_device = not root.is_dir() or root.stat().st_dev == parent.stat().st_dev
    return parent / STORE if usable and same_device else root


def recorded_store(root: Path) -> Path | None:
    """The store that a run's link `work` leads to, there or not; None if it has none."""
    link = root / WORK
    return link.resolve().parent if link.is_symlink() else None


def lock_holder(stream: TextIO) -> str | None:
    """Who holds the lock of a file; None if this process does from now on (a reader shares it with other readers)."""
    mode = fcntl.LOCK_EX if stream.writable() else fcntl.LOCK_SH
    while not _try_lock(stream, mode):
        if not _try_lock(stream, fcntl.LOCK_SH):  # else only readers hold it, and for an instant: try again
            stream.seek(0)
            return stream.read().strip() or "another process"
    return None


def _try_lock(stream: TextIO, mode: int) -> bool:
    try:
        fcntl.flock(stream, mode | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


def write_owner(stream: TextIO, purpose: str = "") -> None:
    """Record this process in a file that it has locked, for those that wait."""
    stream.truncate(0)
    stream.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}{purpose}")
    stream.flush()


def _is_file(stream: TextIO, path: Path) -> bool:
    """Whether the path still leads to an open file."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    return False


def file_stats(path: Path) -> Iterator[os.stat_result]:
    """Of a file or of every file below a folder, without those that another process deletes meanwhile."""
    files = (os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)
    for file in [path] if path.is_file() else files:
        with suppress(FileNotFoundError):
            yield os.lstat(file)


def link_tree(source: Path, target: Path, partial: Path) -> None:
    """Link a folder's files into a new folder, atomically. If a power cut undoes it, the source still has them.

    Args:
        partial: a temporary folder on the target's file system.
    """
    with _linking:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for path in sorted(source.rglob("*")):
            place = partial / path.relative_to(source)
            if path.is_dir():
                place.mkdir()
            else:
                link_or_copy(path, place)
        for folder in (partial, *(path for path in partial.rglob("*") if path.is_dir())):
            sync(folder)
        partial.rename(target)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system has no links."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NOT_LINKABLE:
            raise
        shutil.copyfile(source, target)
        sync(target)
