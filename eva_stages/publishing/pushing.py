"""A push: what a run has is compared with what the Hub has, and the difference is committed, repository by repository.

What was pushed stands in the run's `published.json` (commits, and the sha256 of every file), written after each repository, so a
push that was cut off goes on with the next one; files of the one it was cut off in that had arrived are not sent again.
"""

import json
import tempfile
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from eva_stages.core.durable import write_whole
from eva_stages.core.errors import ConfigError, DamagedError
from eva_stages.core.event_log import utc_now
from eva_stages.core.ourfiles import read_json
from eva_stages.core.run_folder import Run
from eva_stages.publishing.contents import REPORT, File, Repository, Selection, repositories, sha256
from eva_stages.publishing.hub import MARK, Hub, Remote
from eva_stages.publishing.privacy import SERVER, Privacy, hosts_of
from eva_stages.publishing.story import Story, story_of
from eva_stages.views.history import read_history

PUBLISHED = "published.json"
TITLE_CHARACTERS = 59
UNPUBLISHED = "put back a copy of it; without one: mv {root} {root}-2 && rm {root}-2/published.json && eva push {root}-2 --to NAMESPACE"
"""The record says which repositories are this run's, and nothing else does: without it, the run goes to new ones."""


@dataclass(frozen=True)
class Outcome:
    """What became of a repository: the paths of the files that were (or would be) sent, and the commit they are in."""

    repository: Repository
    changed: tuple[str, ...]
    size: int
    """Bytes of the changed files."""
    commit: str | None


def _outcome(repository: Repository, changed: list[File], commit: str | None) -> Outcome:
    return Outcome(repository, tuple(file.path for file in changed), sum(file.size for file in changed), commit)


class Record:
    """`published.json` of a run."""

    def __init__(self, root: Path) -> None:
        self._path = root / PUBLISHED
        found = read_json(self._path, dict, UNPUBLISHED.format(root=root)) if self._path.is_file() else {}
        self.run: str = found.get("run") or uuid.uuid4().hex
        """Tells this run from others of the same name."""
        self.collections: dict[str, str] = found.get("collections", {})
        self.repositories: dict[str, dict[str, Any]] = found.get("repositories", {})
        if not _is_record(self.run, self.collections, self.repositories):
            raise DamagedError(f"{self._path} is damaged: it holds no record of pushes", UNPUBLISHED.format(root=root))

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        """Repository to path to what was pushed there."""
        return {name: entry["files"] for name, entry in self.repositories.items()}

    def save(self) -> None:
        document = {"run": self.run, "collections": self.collections, "repositories": self.repositories}
        write_whole(self._path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def _is_record(run: Any, collections: Any, repositories: Any) -> bool:
    if not isinstance(run, str) or not isinstance(collections, dict) or not isinstance(repositories, dict):
        return False
    files = [entry.get("files") for entry in repositories.values() if isinstance(entry, dict)]
    known = [file for one in files if isinstance(one, dict) for file in one.values()]
    return len(files) == len(repositories) and all(isinstance(one, dict) for one in (*files, *known))


def push_run(
    run: Run, namespace: str, private: bool, selection: Selection, dry_run: bool, report_line: Callable[[str], None]
) -> tuple[list[Outcome], str | None]:
    """Push what the selection takes of a run; returns the outcome for each repository, and the collection's slug.

    Raises:
        ConfigError: if there is nothing to push, or it must not be pushed there; nothing has been sent then.
        HubError: if the Hub keeps failing; the same push resumes.
    """
    hub = None if dry_run else Hub(report_line)
    if hub is not None:
        hub.check_account(namespace)
    history = read_history(run)
    hosts = hosts_of(history.recipe)
    privacy = Privacy(run.root, (hub.token,) if hub is not None and hub.token else (), hosts)
    if hosts:
        report_line(f"api_base is left out of what is published, and {', '.join(hosts)} appears as {SERVER} in it")
    story = story_of(history, namespace, privacy)
    record = Record(run.root)
    report = run.root / REPORT
    _check(run, story, selection, report)
    if selection.only is None and not report.is_file():
        report_line(f"there is no report yet: `eva report {run.root.name}` writes one, and the next push includes it")
    with tempfile.TemporaryDirectory() as scratch:
        wanted = repositories(story, selection, report, record.files, privacy, Path(scratch))
        if hub is None:
            return preview(wanted, record), record.collections.get(namespace)
        outcomes = push(run, wanted, record, hub, private, report_line)
    return outcomes, tie(wanted, record, hub, f"eva: {story.name}", namespace, private)


def _check(run: Run, story: Story, selection: Selection, report: Path) -> None:
    try:
        validate_repo_id(story.model(max(story.policies, default=0)))
    except HFValidationError as error:
        raise ConfigError(
            [f"{story.model(0)} is no valid name of a repository ({error}); rename the run's folder {run.root}, or give another --to"]
        ) from error
    if selection.only == "report":
        if not report.is_file():
            raise ConfigError([f"{run.root.name} has no {REPORT}; write it first: eva report {run.root.name}"])
        return
    taken = [artifact for artifact in story.artifacts if selection.takes(artifact)]
    if not taken:
        numbers = sorted({artifact.iteration for artifact in story.artifacts})
        where = f" in iteration {selection.iteration}; iterations with complete stages: {numbers}" if numbers else ""
        raise ConfigError([f"{run.root.name} has no complete stage{where}; run `eva run` first"])
    if selection.only == "models" and not any(selection.takes(policy) for policy in story.policies.values()):
        of_iteration = "" if selection.iteration is None else f" of iteration {selection.iteration}"
        raise ConfigError([f"{run.root.name} has no trained policy{of_iteration} yet"])


def preview(wanted: list[Repository], record: Record) -> list[Outcome]:
    """What a push would send, judged by what earlier ones recorded; asks nobody."""
    outcomes = []
    for repository in wanted:
        known = record.files.get(repository.name, {})
        changed = [file for file in repository.files if known.get(file.path, {}).get("sha256") != sha256(file, known)]
        outcomes.append(_outcome(repository, changed, record.repositories.get(repository.name, {}).get("commit")))
    return outcomes


def push(run: Run, wanted: list[Repository], record: Record, hub: Hub, private: bool, say: Callable[[str], None]) -> list[Outcome]:
    """Bring every repository to what it should be, and tie them in a collection.

    Raises:
        ConfigError: before anything is sent, if a repository holds another run, or files of others where eva's would go.
        HubError: if the Hub gives up on us; the next push goes on.
    """
    record.save()
    remotes = {repository.name: hub.remote(repository) for repository in wanted}
    marks = {repository.name: hub.mark(repository, remotes[repository.name]) for repository in wanted}
    faults = [
        fault for repository in wanted for fault in _faults(repository, remotes[repository.name], marks[repository.name], record, private)
    ]
    if faults:
        raise ConfigError(faults)
    outcomes = []
    for repository in wanted:
        outcome = _push(repository, remotes[repository.name], marks[repository.name], record, hub, private)
        if outcome.changed:
            facts = {"repository": repository.name, "commit": outcome.commit, "files": len(outcome.changed)}
            run.event("published", **facts)
        say(f"{repository.name}: {f'{len(outcome.changed)} files, {outcome.size:,} bytes' if outcome.changed else 'nothing has changed'}")
        outcomes.append(outcome)
    return outcomes


def tie(wanted: list[Repository], record: Record, hub: Hub, title: str, namespace: str, private: bool) -> str:
    """Have the repositories in the run's collection; returns its slug."""
    slug = hub.collect(record.collections.get(namespace), title[:TITLE_CHARACTERS], namespace, private, wanted)
    if record.collections.get(namespace) != slug:
        record.collections[namespace] = slug
        record.save()
    return slug


def _faults(repository: Repository, remote: Remote | None, mark: Mapping[str, Any], record: Record, private: bool) -> list[str]:
    """Why a repository must not be pushed to."""
    if remote is None:
        return []
    if private and not remote.private:
        return [f"{repository.name} exists and is public: make it private in its settings on the Hub, or push without --private"]
    if mark and mark["run"] != record.run:
        return [f"{repository.name} holds another run of this name: rename the folder of this run, or delete that repository"]
    own = {*mark.get("files", []), MARK} if mark else set()
    foreign = [file.path for file in repository.files if file.path in remote.hashes and file.path not in own]
    if MARK in remote.hashes and not mark:
        foreign.append(MARK)
    if foreign:
        names = ", ".join(foreign)
        return [f"{repository.name} has files that eva did not put there and would write over: {names}. Rename them or the run's folder"]
    return []


def _push(repository: Repository, remote: Remote | None, earlier: Mapping[str, Any], record: Record, hub: Hub, private: bool) -> Outcome:
    known = record.files.get(repository.name, {})
    hashes = {file.path: sha256(file, known) for file in repository.files}
    mark = _mark(record, {*earlier.get("files", []), *hashes})
    hashes[MARK] = sha256(mark, {})
    changed = hub.changed([*repository.files, mark], hashes, remote)
    if not changed and remote is not None:
        commit = remote.commit
    else:
        commit = hub.commit(repository, changed, private, f"eva push: {len(changed)} files")
    sources = {file.path: file.source for file in repository.files}
    pushed = {path: {"sha256": digest, "source": sources.get(path)} for path, digest in hashes.items()}
    entry = {"commit": commit, "files": {**(known if remote is not None else {}), **pushed}}
    before = record.repositories.get(repository.name, {})
    if {**before, "pushed": None} != {**entry, "pushed": None}:
        record.repositories[repository.name] = {**entry, "pushed": utc_now()}
        record.save()
    return _outcome(repository, changed, commit)


def _mark(record: Record, paths: set[str]) -> File:
    document = {"run": record.run, "files": sorted(paths - {MARK})}
    return File(MARK, (json.dumps(document, indent=1) + "\n").encode())
