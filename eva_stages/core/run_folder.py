"""A run on disk: a name, a recipe, and links to the artifacts that it consists of. A name under `stages/` means complete.

    runs/<run>
      recipe.yaml, stages.json (the recipe's stages), events.jsonl, lock
      stages/<iteration>-<stage>-<fp12>/{data/*.parquet | model/}, manifest.json, the logs, pipeline.yaml of row stages
      work -> the work in progress of the run's store
      damaged/<iteration>-<stage>-<fp12>.<n>   artifacts that a repair moved away

Committing writes the data, then the manifest, syncs both, renames the folder into the store and links it into the run, so a reader never
finds an incomplete artifact. The digests in a manifest are checked whenever the artifact is used again. No clock decides what is reused.
"""

import json
import os
import platform
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from eva_stages.core.durable import sync, write_whole, writing_to
from eva_stages.core.errors import DamagedError, DataError, LockedError, UnreadableError
from eva_stages.core.event_log import add_event, read_events, utc_now
from eva_stages.core.fingerprint import tree_digest
from eva_stages.core.kinds import folder_label
from eva_stages.core.logs import keep_logs
from eva_stages.core.manifests import PIPELINE, artifact_name, content, git_revision, package_versions, read_manifest, write_manifest
from eva_stages.core.ourfiles import read_json, rebuilt
from eva_stages.core.planned_stages import PLAN, PlannedStage, read_planned_stages, stage_of_folder, write_planned_stages
from eva_stages.core.stage import Outside, Stage
from eva_stages.core.store import WORK, Store, link_tree, lock_holder, recorded_store, write_owner
from eva_stages.core.study_record import STUDY_FILE

UNPLANNED_NOTICE = "the stages that were committed last are used instead; `eva run` writes the file again"
DAMAGED_FOLDER, PARTIAL_FOLDER = "damaged", ".partial"
ATTEMPT = "attempt.json"
"""In the folder of an attempt: its id, its run, and the digests of its inputs."""


class Run:
    """The folder of one run.

    Args:
        store: folder of the store; None: the store that the run used last, or the run's own folder, which shares nothing.
    """

    def __init__(self, root: Path, store: Path | None = None) -> None:
        self.root = root
        self.stages = root / "stages"
        self.store = Store(store or recorded_store(root) or root)
        self.work = self.store.work

    @property
    def shares(self) -> bool:
        """Whether its store is another folder than its own."""
        return self.store.root.resolve() != self.root.resolve()

    def create(self) -> None:
        self.stages.mkdir(parents=True, exist_ok=True)
        if self.shares or not (self.root / WORK).is_symlink():
            with writing_to(self.store.root):
                self.store.create()

    # --- complete artifacts

    def is_complete(self, stage: Stage) -> bool:
        """Whether the run or its store has an artifact of a stage whose manifest can be read; `fault` checks all of it. One in the store
        alone must be from the present content of the stage's inputs, as far as they are complete.
        """
        try:
            manifest = self.manifest(stage)
        except DamagedError:
            return False
        with suppress(DamagedError):  # an input is not complete yet
            return self.holds(stage) or not self._changed_inputs(stage, manifest)
        return True

    def holds(self, stage: Stage | PlannedStage) -> bool:
        """Whether a stage's artifact is in the run's own folder."""
        return (self.stages / stage.folder).is_dir()

    def manifest(self, stage: Stage) -> dict[str, Any]:
        return read_manifest(self.place(stage))

    def place(self, stage: Stage | PlannedStage) -> Path:
        """The folder of a stage's artifact: the run's own, or else the store's."""
        return (self if self.holds(stage) else self.store).stages / stage.folder

    def folder(self, upstream: Stage | Outside) -> Path:
        """The folder with the files of a stage or of an input that eva did not build."""
        return upstream.path if isinstance(upstream, Outside) else content(self.place(upstream))

    def digest(self, upstream: Stage | Outside) -> str:
        return upstream.digest if isinstance(upstream, Outside) else str(self.manifest(upstream)["digest"])

    def fault(self, stage: Stage) -> str | None:
        """Why the run's artifact of a stage cannot be used: its content or its inputs have changed; None if it can, or there is none."""
        return self._fault(stage, self.stages / stage.folder) if (self.stages / stage.folder).exists() else None

    def _fault(self, stage: Stage, folder: Path) -> str | None:
        try:
            manifest = read_manifest(folder)
            digest = tree_digest(content(folder))
        except (DataError, FileNotFoundError) as error:
            return str(error)
        except OSError as error:
            raise error if isinstance(error, UnreadableError) else UnreadableError(Path(error.filename or folder), error) from error
        if manifest["fingerprint"] != stage.fingerprint:
            return f"{folder} belongs to another stage (fingerprint {manifest['fingerprint'][:12]})"
        if digest != manifest["digest"]:
            return f"{folder} has changed since it was built: its digest does not match the manifest"
        changed_inputs = self._changed_inputs(stage, manifest)
        return f"{folder} was built from a different version of input {changed_inputs[0]!r}" if changed_inputs else None

    def _changed_inputs(self, stage: Stage, manifest: Mapping[str, Any]) -> list[str]:
        """Names of the inputs whose content differs from that in an artifact's manifest."""
        recorded_digests = {name: entry.get("digest") for name, entry in manifest["inputs"].items()}
        return [name for name, digest in self._input_digests(stage).items() if recorded_digests.get(name) != digest]

    def _input_digests(self, stage: Stage) -> dict[str, str]:
        return {name: self.digest(upstream) for name, upstream in stage.inputs.items()}

    def put_aside(self, stage: Stage) -> Path:
        """Move a stage's artifact away, for a person to inspect or delete; returns its new place."""
        damaged_folder = self.root / DAMAGED_FOLDER
        damaged_folder.mkdir(exist_ok=True)
        place = next(place for number in count(1) if not (place := damaged_folder / f"{stage.folder}.{number}").exists())
        (self.stages / stage.folder).rename(place)
        sync(damaged_folder)
        sync(self.stages)
        return place

    def plan(self, stages: Iterable[Stage]) -> None:
        """Record the stages of the run's recipe, upstream first."""
        write_planned_stages(self.root / PLAN, stages)

    def planned_stages(self) -> list[PlannedStage]:
        """The stages of the recipe as it was last run, upstream first, read from the folder alone.

        Where the run has no list of them: the stages of the artifacts that were committed last.
        """
        if (self.root / PLAN).is_file():
            listed_stages = rebuilt(lambda: read_planned_stages(self.root / PLAN), None, UNPLANNED_NOTICE)
            if listed_stages is not None:
                return listed_stages
        folders = [path.parent for path in self.stages.glob("*/manifest.json")]
        completed_folders = [
            f"{event['stage']}-{event['fingerprint'][:12]}" for event in self.events() if event["event"] in ("done", "reused")
        ]
        place = {name: number for number, name in enumerate(completed_folders)}
        by_end = sorted(folders, key=lambda folder: (place.get(folder.name, -1), read_manifest(folder)["ended"]))
        newest = {folder_label(folder.name): folder for folder in by_end}
        return [stage_of_folder(folder.name) for folder in sorted(newest.values(), key=by_end.index)]

    # --- computing; the caller holds the stage's lock

    def link(self, stage: Stage) -> None:
        """Link the store's artifact of a stage into the run's folder."""
        if self.shares:
            link_tree(self.store.stages / stage.folder, self.stages / stage.folder, self.root / PARTIAL_FOLDER)

    def take(self, stage: Stage) -> str | None:
        """Link the store's artifact of a stage, if it has one; returns the reason if that is damaged or was built from other inputs."""
        if not self.shares or not self.store.has(stage.folder):
            return None
        if fault := self._fault(stage, self.store.stages / stage.folder):
            return fault
        self.link(stage)
        self.clear(stage)
        return None

    def offer(self, stage: Stage) -> None:
        """Link the run's artifact of a stage into a store that has no sound one; delete the work on the stage if it is obsolete."""
        place, digest = self.store.stages / stage.folder, self.digest(stage)
        try:
            shared_digest = read_manifest(place)["digest"]
        except DamagedError:
            self.store.remove(stage.folder)
            link_tree(self.stages / stage.folder, place, self.work / f"{stage.folder}.ready")
            shared_digest = digest
        if shared_digest == digest:
            self.clear(stage)

    def is_settled(self, stage: Stage) -> bool:
        """Whether `offer` has nothing to do."""
        return self.store.has(stage.folder) and not (self.work / stage.folder).is_dir()

    def workplace(self, stage: Stage, attempt: str = "") -> Path:
        """The folder of an attempt, with the files of an earlier attempt that computed from the same inputs."""
        folder, inputs = self.work / stage.folder, self._input_digests(stage)
        if (folder / ATTEMPT).is_file() and attempt_record(folder).get("inputs") != inputs:
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / ATTEMPT, json.dumps({"attempt": attempt, "run": str(self.root.resolve()), "inputs": inputs}))
        return folder

    def commit(self, stage: Stage, artifact: Path, facts: dict[str, Any]) -> dict[str, Any]:
        """Turn `artifact` (a `data` or `model` folder in the workplace) into the stage's artifact; returns its manifest."""
        for path in sorted(artifact.rglob("*")):
            sync(path)
        manifest = {
            **stage.payload,
            "fingerprint": stage.fingerprint,
            "digest": tree_digest(artifact),
            "inputs": {
                name: {"fingerprint": upstream.fingerprint, "digest": self.digest(upstream), "artifact": artifact_name(upstream)}
                for name, upstream in stage.inputs.items()
            },
            "attempt": attempt_record(self.work / stage.folder).get("attempt"),
            **facts,
            "ended": utc_now(),
            "packages": package_versions(),
            "python": platform.python_version(),
            "git": git_revision(),
        }
        ready = self.work / f"{stage.folder}.ready"
        shutil.rmtree(ready, ignore_errors=True)
        ready.mkdir()
        artifact.rename(ready / artifact.name)
        if (pipeline := self.work / stage.folder / PIPELINE).is_file():
            shutil.copyfile(pipeline, ready / PIPELINE)  # an attempt that is killed here must find it again
        keep_logs(self.work / stage.folder, ready)
        manifest = write_manifest(ready, manifest)
        if self.shares:
            self.store.remove(stage.folder)  # damaged, or built from other inputs
        self.store.put(stage.folder, ready)
        self.link(stage)
        return manifest

    def clear(self, stage: Stage) -> None:
        """Delete the files of the attempts at a stage."""
        shutil.rmtree(self.work / stage.folder, ignore_errors=True)

    # --- events and the lock of the run

    def event(self, kind: str, **facts: Any) -> None:
        add_event(self.root, kind, **facts)

    def events(self) -> list[dict[str, Any]]:
        """Everything that was logged, in order."""
        return read_events(self.root)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; the kernel releases it however the process ends.

        Raises:
            LockedError: with the process that holds it.
        """
        with (self.root / "lock").open("a+", encoding="utf-8") as stream:
            if holder := lock_holder(stream):
                raise LockedError(f"{self.root} is in use by {holder}; wait for it, or choose another folder (--run-dir or --study-dir)")
            write_owner(stream)
            yield

    def holder(self) -> str | None:
        """The process that works on the run now; None if there is none."""
        path = self.root / "lock"
        if not path.is_file():
            return None
        with path.open(encoding="utf-8") as stream:
            return lock_holder(stream)

    def join_store(self) -> None:
        """Let `work` in the run's folder lead to its store's; unfinished work of a run that shared nothing moves there.

        The caller holds the run's lock.
        """
        link = self.root / WORK
        if not self.shares:
            if link.is_symlink():
                link.unlink()
            return
        self.store.create()
        if link.is_dir() and not link.is_symlink():
            for path in link.iterdir():
                if not (self.work / path.name).exists():
                    shutil.move(path, self.work / path.name)
            shutil.rmtree(link)
        root, work = self.root.resolve(), self.work.resolve()
        near_folders = (root.parent, *(root.parents[1:3] if (root.parents[1] / STUDY_FILE).is_file() else ()))
        target = Path(os.path.relpath(work, root)) if work.parent.parent in near_folders else work
        if not link.is_symlink() or link.readlink() != target:
            link.unlink(missing_ok=True)
            link.symlink_to(target)


def attempt_record(folder: Path) -> dict[str, Any]:
    """The record of an attempt; empty if the file is missing or damaged."""
    empty_record: dict[str, Any] = {}
    path = folder / ATTEMPT
    return rebuilt(lambda: read_json(path, dict), empty_record, "the attempt starts again") if path.is_file() else empty_record
