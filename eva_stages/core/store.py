"""A run on disk. A name under `stages/` means done and whole; everything unfinished is under `work/`.

    runs/<run>
      recipe.yaml, stages.json (folders of the recipe's stages), events.jsonl, lock
      stages/<iteration>-<stage>-<fp12>/{data/*.parquet | model/}, manifest.json, pipeline.yaml of row stages
      work/<iteration>-<stage>-<fp12>/...
      damaged/<iteration>-<stage>-<fp12>.<n>   what a repair put aside

Committing writes the data, then the manifest, syncs both and renames the folder; a reader therefore never meets half an artifact.
The digests in a manifest are checked whenever the artifact is used again. No clock decides what is reused or resumed.
"""

import errno
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache, cached_property
from importlib import metadata
from itertools import count
from pathlib import Path
from typing import Any, TextIO

from eva_stages.core.decoding import decode_json
from eva_stages.core.errors import DamagedError, DataError, EvaError, LockedError, StageError, UnreadableError
from eva_stages.core.fingerprint import tree_digest
from eva_stages.core.harmless import finite_json
from eva_stages.core.ourfiles import notice, read_content, read_json, rebuilt
from eva_stages.core.redaction import redact, redacted
from eva_stages.core.stage import Outside, Stage

PIPELINE = "pipeline.yaml"
"""The distilabel pipeline that a row stage ran, beside its data: no part of the artifact's digest."""
PLAN = "stages.json"
"""Which stages belong together, where a folder holds those of more than one recipe."""
CHECKSUM = "checksum"
"""The manifest's own: sha256 of everything else in it."""
UNPLANNED = "the stages that were committed last are taken instead; `eva run` writes the file again"
FIELDS = {"stage": str, "iteration": int, "fingerprint": str, "digest": str, "inputs": dict}
"""What every manifest has."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_ALLOWED = (errno.EROFS, errno.EACCES, errno.EPERM)
UNWRITABLE = (*NO_ROOM, *NOT_ALLOWED)
PACKAGES = ("eva-align", "torch", "transformers", "trl", "distilabel", "datasets", "accelerate", "pyarrow", "numpy")


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def sync(path: Path) -> None:
    """Flush a file or a folder entry to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, text: str) -> None:
    """Write a text file, without secrets, so that it is there whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(redact(text), encoding="utf-8")
    sync(partial)
    partial.replace(path)
    sync(path.parent)


class Run:
    """The folder of one run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stages = root / "stages"
        self.work = root / "work"

    def create(self) -> None:
        self.stages.mkdir(parents=True, exist_ok=True)
        self.work.mkdir(exist_ok=True)

    # --- what is done

    def done(self, stage: Stage) -> bool:
        """Whether a stage has an artifact whose manifest can be read; `fault` looks at all of it."""
        try:
            self.manifest(stage)
        except DamagedError:
            return False
        return True

    def manifest(self, stage: Stage) -> dict[str, Any]:
        return read_manifest(self.place(stage))

    def place(self, stage: Stage) -> Path:
        """The folder of a stage's artifact."""
        return self.stages / stage.folder

    def folder(self, upstream: Stage | Outside) -> Path:
        """Where the files of a stage or of something from outside are."""
        return upstream.path if isinstance(upstream, Outside) else content(self.place(upstream))

    def digest(self, upstream: Stage | Outside) -> str:
        return upstream.digest if isinstance(upstream, Outside) else str(self.manifest(upstream)["digest"])

    def fault(self, stage: Stage) -> str | None:
        """What is wrong with a stage's artifact: it is not what was committed, or its inputs have changed since; None if nothing is."""
        folder = self.stages / stage.folder
        if not folder.exists():
            return None
        try:
            manifest = self.manifest(stage)
            digest = tree_digest(content(folder))
        except (DataError, FileNotFoundError) as error:
            return str(error)
        except OSError as error:
            raise error if isinstance(error, UnreadableError) else UnreadableError(Path(error.filename or folder), error) from error
        if manifest["fingerprint"] != stage.fingerprint:
            return f"{folder} belongs to another stage (fingerprint {manifest['fingerprint'][:12]})"
        if digest != manifest["digest"]:
            return f"{folder} has changed since it was made: its digest is not the recorded one"
        recorded = {name: made["digest"] for name, made in manifest["inputs"].items()}
        other = [name for name, upstream in stage.inputs.items() if recorded.get(name) != self.digest(upstream)]
        return f"{folder} was made from another {other[0]} than the present one" if other else None

    def put_aside(self, stage: Stage) -> Path:
        """Move a stage's artifact to where nothing uses it, for a person to look at or delete; returns where it is now."""
        aside = self.root / "damaged"
        aside.mkdir(exist_ok=True)
        place = next(place for number in count(1) if not (place := aside / f"{stage.folder}.{number}").exists())
        (self.stages / stage.folder).rename(place)
        sync(aside)
        sync(self.stages)
        return place

    def plan(self, stages: Iterable[Stage]) -> None:
        """Put down which stages the run's recipe consists of, upstream first."""
        write_whole(self.root / PLAN, json.dumps([stage.folder for stage in stages], indent=1) + "\n")

    def line(self) -> list[Path]:
        """The finished artifacts of the recipe as it was last run, upstream first, without looking at the recipe.

        Where the run has no plan: the artifact of every stage and iteration that was committed last.
        """
        plan = self.root / PLAN
        names = rebuilt(lambda: _folders(plan), None, UNPLANNED) if plan.is_file() else None
        if names is not None:
            planned = [self.stages / name for name in names]
            return [folder for folder in planned if (folder / "manifest.json").is_file()]
        folders = [path.parent for path in self.stages.glob("*/manifest.json")]
        done = [f"{event['stage']}-{event['fingerprint'][:12]}" for event in self.events() if event["event"] == "done"]
        place = {name: number for number, name in enumerate(done)}
        by_end = sorted(folders, key=lambda folder: (place.get(folder.name, -1), read_manifest(folder)["ended"]))
        newest = {folder.name.rpartition("-")[0]: folder for folder in by_end}
        return sorted(newest.values(), key=by_end.index)

    # --- making

    def workplace(self, stage: Stage) -> Path:
        """The folder of an attempt; an earlier attempt's files are still in it."""
        folder = self.work / stage.folder
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def commit(self, stage: Stage, out: Path, facts: dict[str, Any]) -> dict[str, Any]:
        """Turn `out` (a `data` or `model` folder in the workplace) into the stage's artifact; returns its manifest."""
        for path in sorted(out.rglob("*")):
            sync(path)
        manifest: dict[str, Any] = redacted(
            {
                **stage.payload,
                "fingerprint": stage.fingerprint,
                "digest": tree_digest(out),
                "inputs": {
                    name: {"fingerprint": upstream.fingerprint, "digest": self.digest(upstream), "artifact": artifact_name(upstream)}
                    for name, upstream in stage.inputs.items()
                },
                **facts,
                "ended": now(),
                "packages": package_versions(),
                "python": platform.python_version(),
                "git": git_revision(),
            }
        )
        manifest = finite_json(manifest)
        ready = self.work / f"{stage.folder}.ready"
        shutil.rmtree(ready, ignore_errors=True)
        ready.mkdir()
        out.rename(ready / out.name)
        if (pipeline := self.work / stage.folder / PIPELINE).is_file():
            shutil.copyfile(pipeline, ready / PIPELINE)  # an attempt that is killed here must find it again
        checksum = _checksum(json.loads(json.dumps(manifest)))  # as a reader has it
        write_whole(ready / "manifest.json", json.dumps({**manifest, CHECKSUM: checksum}, indent=2, ensure_ascii=False) + "\n")
        ready.rename(self.stages / stage.folder)
        sync(self.stages)
        return manifest

    def clear(self, stage: Stage) -> None:
        """Delete what the attempts of a finished stage left."""
        shutil.rmtree(self.work / stage.folder, ignore_errors=True)

    # --- what happened

    def event(self, kind: str, **facts: Any) -> None:
        line = json.dumps({"time": now(), "event": kind, **redacted(facts)}, ensure_ascii=False)
        with (self.root / "events.jsonl").open("ab+") as stream:
            if stream.tell():
                stream.seek(-1, os.SEEK_END)
                line = line if stream.read(1) == b"\n" else f"\n{line}"  # a full disk has cut the last one off
            stream.write(f"{line}\n".encode(errors="replace"))
            stream.flush()
            os.fsync(stream.fileno())

    def events(self) -> list[dict[str, Any]]:
        """Everything that was logged, in order, without lines that a kill or a full disk has cut off, or that are no events."""
        path = self.root / "events.jsonl"
        lines = read_content(path).split(b"\n") if path.is_file() else []
        events = [_event(line) for line in lines if line.strip()]
        unreadable = sum(event is None for event in events[:-1])
        if unreadable:
            notice(f"{path}: {unreadable} lines are no events and are left out")
        return [event for event in events if event is not None]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; the kernel lets go of it however the process ends.

        Raises:
            LockedError: saying who holds it.
        """
        with (self.root / "lock").open("a+", encoding="utf-8") as stream:
            if holder := _holder(stream):
                raise LockedError(f"the run {self.root} is in use by {holder}; wait for it, or give this one another --run-dir")
            stream.truncate(0)
            stream.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
            stream.flush()
            yield

    def holder(self) -> str | None:
        """Who works on the run now; None if nobody does."""
        path = self.root / "lock"
        if not path.is_file():
            return None
        with path.open(encoding="utf-8") as stream:
            return _holder(stream)


class RecordedRun(Run):
    """A run to look at: where a stage would be another one now (a newer eva, a changed input), what was made of it before counts."""

    def place(self, stage: Stage) -> Path:
        place = super().place(stage)
        return place if place.is_dir() else self._recorded.get(stage.label, place)

    def done(self, stage: Stage) -> bool:
        """Whether a stage has an artifact.

        Raises:
            DamagedError: if its manifest cannot be read: without a word the stage would be missing from what is shown or pushed.
        """
        manifest = self.place(stage) / "manifest.json"
        try:
            return manifest.is_file() and bool(self.manifest(stage))
        except DamagedError:
            if manifest.is_file():
                raise
            return False  # put aside just now, by a repair

    @cached_property
    def _recorded(self) -> dict[str, Path]:
        return {folder.name.rpartition("-")[0]: folder for folder in self.line()}


def _holder(stream: TextIO) -> str | None:
    """Who holds the lock; None if we do from now on."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        stream.seek(0)
        return stream.read().strip() or "another process"


def read_manifest(folder: Path) -> dict[str, Any]:
    """What is recorded of an artifact.

    Raises:
        DamagedError: if it is not what was written; manifests of before there was a checksum are taken as they are.
    """
    path = folder / "manifest.json"
    manifest = read_json(path, dict)
    checksum = manifest.pop(CHECKSUM, None)
    if checksum not in (None, _checksum(manifest)):
        raise DamagedError(f"{path} has changed since it was written: its checksum is another")
    if bad := [name for name, kind in FIELDS.items() if not isinstance(manifest.get(name), kind)]:
        raise DamagedError(f"{path} is damaged: it has no {', '.join(bad)}")
    if not all(isinstance(entry, dict) and isinstance(entry.get("artifact"), str) for entry in manifest["inputs"].values()):
        raise DamagedError(f"{path} is damaged: its inputs are no artifacts")
    return manifest


def _folders(plan: Path) -> list[str]:
    names = read_json(plan, list)
    if not all(isinstance(name, str) and re.fullmatch(r"[\w.-]+", name) for name in names):
        raise DamagedError(f"{plan} is damaged: it does not list folders of stages")
    return names


def _checksum(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def content(folder: Path) -> Path:
    """The folder with an artifact's files: `model` for checkpoints, `data` for everything else."""
    return folder / "model" if (folder / "model").is_dir() else folder / "data"


def artifact_name(upstream: Stage | Outside) -> str:
    return upstream.name if isinstance(upstream, Outside) else upstream.folder


def _event(line: bytes) -> dict[str, Any] | None:
    """A line of the log; None if it is none, such as the last one of a run that was killed while writing it."""
    try:
        event = decode_json(line)
        datetime.fromisoformat(event["time"])
        known = isinstance(event["event"], str)
        texts = all(isinstance(event.get(name, ""), str) for name in ("stage", "fingerprint", "cause"))
        seconds = isinstance(event.get("seconds", 0), int | float)
        datetime.fromisoformat(event.get("last_sign", event["time"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return event if known and texts and seconds else None


@cache
def package_versions() -> dict[str, str]:
    installed = {package: _version(package) for package in PACKAGES}
    return {package: version for package, version in installed.items() if version}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@cache
def git_revision() -> str | None:
    """The commit that this code is at, with `-dirty` behind it where files differ; None outside a checkout."""
    folder = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=folder,
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
    except OSError:
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def unwritable(error: OSError, place: Path) -> StageError:
    """What to tell of a place that cannot be written to, because the disk is full or for another reason."""
    there = next(folder for folder in (place, *place.absolute().parents) if os.access(folder, os.F_OK))
    why = f"{os.strerror(error.errno or 0)} ({shutil.disk_usage(there).free / 2**20:.0f} MiB free)"
    fix = "Make it writable" if error.errno in NOT_ALLOWED else "Free some space"
    return StageError(f"cannot write to {place}: {why}. {fix}; what is done is kept")


@contextmanager
def writing_to(place: Path) -> Iterator[None]:
    """Turns the errors of a place that is full or not ours to write to into words.

    Raises:
        StageError: saying what is the matter with the place.
    """
    try:
        yield
    except EvaError:
        raise
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        raise unwritable(error, place) from error
