"""A run on disk. A name under `stages/` means done and whole; everything unfinished is under `work/`.

    runs/<run>
      recipe.yaml, stages.json (folders of the recipe's stages), events.jsonl, lock
      stages/<iteration>-<stage>-<fp12>/{data/*.parquet | model/}, manifest.json, pipeline.yaml of row stages
      work/<iteration>-<stage>-<fp12>/...
      damaged/<iteration>-<stage>-<fp12>.<n>   what a repair put aside

Committing writes the data, then the manifest, syncs both and renames the folder; a reader therefore never meets half an artifact.
The digests in a manifest are checked whenever the artifact is used again. No clock decides what is reused or resumed.
"""

import fcntl
import os
import platform
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, TextIO

from eva_stages.core.durable import sync
from eva_stages.core.errors import DamagedError, DataError, LockedError, UnreadableError
from eva_stages.core.event_log import add_event, now, read_events
from eva_stages.core.fingerprint import tree_digest
from eva_stages.core.kinds import folder_label
from eva_stages.core.manifests import PIPELINE, artifact_name, content, git_revision, package_versions, read_manifest, write_manifest
from eva_stages.core.ourfiles import rebuilt
from eva_stages.core.planned_stages import PLAN, read_planned_stages, write_planned_stages
from eva_stages.core.stage import Outside, Stage

UNPLANNED = "the stages that were committed last are used instead; `eva run` writes the file again"


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
        """Record the stages of the run's recipe, upstream first."""
        write_planned_stages(self.root / PLAN, stages)

    def line(self) -> list[Path]:
        """The complete artifacts of the recipe as it was last run, upstream first, read from the folder alone.

        Where the run has no plan: the artifact of every stage and iteration that was committed last.
        """
        planned = rebuilt(lambda: read_planned_stages(self.root / PLAN), None, UNPLANNED) if (self.root / PLAN).is_file() else None
        if planned is not None:
            folders = [self.stages / stage.folder for stage in planned]
            return [folder for folder in folders if (folder / "manifest.json").is_file()]
        folders = [path.parent for path in self.stages.glob("*/manifest.json")]
        done = [f"{event['stage']}-{event['fingerprint'][:12]}" for event in self.events() if event["event"] == "done"]
        place = {name: number for number, name in enumerate(done)}
        by_end = sorted(folders, key=lambda folder: (place.get(folder.name, -1), read_manifest(folder)["ended"]))
        newest = {folder_label(folder.name): folder for folder in by_end}
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
        manifest = {
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
        ready = self.work / f"{stage.folder}.ready"
        shutil.rmtree(ready, ignore_errors=True)
        ready.mkdir()
        out.rename(ready / out.name)
        if (pipeline := self.work / stage.folder / PIPELINE).is_file():
            shutil.copyfile(pipeline, ready / PIPELINE)  # an attempt that is killed here must find it again
        manifest = write_manifest(ready, manifest)
        ready.rename(self.stages / stage.folder)
        sync(self.stages)
        return manifest

    def clear(self, stage: Stage) -> None:
        """Delete what the attempts of a finished stage left."""
        shutil.rmtree(self.work / stage.folder, ignore_errors=True)

    # --- what happened

    def event(self, kind: str, **facts: Any) -> None:
        add_event(self.root, kind, **facts)

    def events(self) -> list[dict[str, Any]]:
        """Everything that was logged, in order."""
        return read_events(self.root)

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
        return {folder_label(folder.name): folder for folder in self.line()}


def _holder(stream: TextIO) -> str | None:
    """Who holds the lock; None if we do from now on."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        stream.seek(0)
        return stream.read().strip() or "another process"
