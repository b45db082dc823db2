"""A push compares a run with its repositories on the Hub and commits the differences, repository by repository.

The pushed files are recorded in the run's `published.json` (commits, and the sha256 of every file), written after each repository, so a
interrupted push resumes with the next one; files that had arrived are not sent again.
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
from eva_stages.publishing.contents import REPORT, Selection, repositories
from eva_stages.publishing.hub import MARK, Hub, Remote
from eva_stages.publishing.privacy import SERVER, Privacy, hosts_of, hosts_of_environment
from eva_stages.publishing.repository import File, Repository, sha256
from eva_stages.publishing.story import Story, story_of
from eva_stages.views.history import read_history

RECORD_FILE = "published.json"
TITLE_CHARACTERS = 59
RECORD_ADVICE = "put back a copy of it; without one: mv {root} {root}-2 && rm {root}-2/published.json && eva push {root}-2 --to NAMESPACE"
"""Only the record knows which repositories belong to this run: without it, the run is pushed to new repositories."""


@dataclass(frozen=True)
class Outcome:
    """The outcome for one repository: the paths of the files that were (or would be) sent, and their commit."""

    repository: Repository
    changed_paths: tuple[str, ...]
    size: int
    """Bytes of the changed files."""
    commit: str | None


def _outcome(repository: Repository, changed_files: list[File], commit: str | None) -> Outcome:
    return Outcome(repository, tuple(file.path for file in changed_files), sum(file.size for file in changed_files), commit)


class Record:
    """`published.json` of a run."""

    def __init__(self, root: Path) -> None:
        self._path = root / RECORD_FILE
        document = read_json(self._path, dict, RECORD_ADVICE.format(root=root)) if self._path.is_file() else {}
        self.run: str = document.get("run") or uuid.uuid4().hex
        """Distinguishes this run from others of the same name."""
        self.collections: dict[str, str] = document.get("collections", {})
        self.repositories: dict[str, dict[str, Any]] = document.get("repositories", {})
        if not _is_record(self.run, self.collections, self.repositories):
            raise DamagedError(f"{self._path} is damaged: it contains no record of pushes", RECORD_ADVICE.format(root=root))

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        """Repository to path to the pushed file."""
        return {name: entry["files"] for name, entry in self.repositories.items()}

    def save(self) -> None:
        document = {"run": self.run, "collections": self.collections, "repositories": self.repositories}
        write_whole(self._path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def _is_record(run: Any, collections: Any, repositories: Any) -> bool:
    if not isinstance(run, str) or not isinstance(collections, dict) or not isinstance(repositories, dict):
        return False
    files = [entry.get("files") for entry in repositories.values() if isinstance(entry, dict)]
    file_entries = [file for entry in files if isinstance(entry, dict) for file in entry.values()]
    return len(files) == len(repositories) and all(isinstance(entry, dict) for entry in (*files, *file_entries))


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
    privacy = Privacy(run.root, (hub.token,) if hub is not None and hub.token else (), (*hosts, *hosts_of_environment()))
    if hosts:
        report_line(f"api_base is not published, and {', '.join(hosts)} appears as {SERVER} in it")
    story = story_of(history, namespace, privacy)
    record = Record(run.root)
    report = run.root / REPORT
    _check(run, story, selection, report)
    if selection.part is None and not report.is_file():
        report_line(f"there is no report yet: `eva report {run.root}` writes one, and the next push includes it")
    with tempfile.TemporaryDirectory() as scratch:
        wanted_repositories = repositories(story, selection, report, record.files, privacy, Path(scratch))
        if hub is None:
            return preview(wanted_repositories, record), record.collections.get(namespace)
        outcomes = push(run, wanted_repositories, record, hub, private, report_line)
    return outcomes, tie(wanted_repositories, record, hub, f"eva: {story.name}", namespace, private)


def _check(run: Run, story: Story, selection: Selection, report: Path) -> None:
    longest_name = max((story.model(0), *story.models), key=len)
    try:
        validate_repo_id(longest_name)
    except HFValidationError as error:
        advice = f"rename the run's folder {run.root}, or give another --to"
        raise ConfigError([f"{longest_name} is not a valid repository name ({error}); {advice}"]) from error
    if selection.part == "report":
        if not report.is_file():
            raise ConfigError([f"{run.root.name} has no {REPORT}; write it first: `eva report {run.root}`"])
        return
    selected_artifacts = [artifact for artifact in story.artifacts if selection.takes(artifact)]
    if not selected_artifacts:
        numbers = sorted({artifact.iteration for artifact in story.artifacts})
        where = f" in iteration {selection.iteration}; iterations with complete stages: {numbers}" if numbers else ""
        raise ConfigError([f"{run.root.name} has no complete stage{where}; run `eva run` first"])
    if selection.part == "models" and not any(selection.takes(model) for model in story.models.values()):
        of_iteration = "" if selection.iteration is None else f" of iteration {selection.iteration}"
        raise ConfigError([f"{run.root.name} has no trained policy{of_iteration} yet"])


def preview(wanted_repositories: list[Repository], record: Record) -> list[Outcome]:
    """What a push would send, by the records of earlier pushes; makes no network calls."""
    outcomes = []
    for repository in wanted_repositories:
        pushed_files = record.files.get(repository.name, {})
        changed_files = [file for file in repository.files if pushed_files.get(file.path, {}).get("sha256") != sha256(file, pushed_files)]
        outcomes.append(_outcome(repository, changed_files, record.repositories.get(repository.name, {}).get("commit")))
    return outcomes


def push(
    run: Run, wanted_repositories: list[Repository], record: Record, hub: Hub, private: bool, say: Callable[[str], None]
) -> list[Outcome]:
    """Update every repository.

    Raises:
        ConfigError: before anything is sent, if a repository holds another run, or files that eva did not push at the same paths.
        HubError: if the Hub keeps failing; the next push resumes.
    """
    record.save()
    remotes = {repository.name: hub.remote(repository) for repository in wanted_repositories}
    marks = {repository.name: hub.mark(repository, remotes[repository.name]) for repository in wanted_repositories}
    faults = [
        fault
        for repository in wanted_repositories
        for fault in _faults(repository, remotes[repository.name], marks[repository.name], record, private)
    ]
    if faults:
        raise ConfigError(faults)
    outcomes = []
    for repository in wanted_repositories:
        outcome = _push(repository, remotes[repository.name], marks[repository.name], record, hub, private)
        if outcome.changed_paths:
            facts = {"repository": repository.name, "commit": outcome.commit, "files": len(outcome.changed_paths)}
            run.event("published", **facts)
        sent_text = f"{len(outcome.changed_paths)} files, {outcome.size:,} bytes" if outcome.changed_paths else "nothing has changed"
        say(f"{repository.name}: {sent_text}")
        outcomes.append(outcome)
    return outcomes


def tie(wanted_repositories: list[Repository], record: Record, hub: Hub, title: str, namespace: str, private: bool) -> str:
    """Add the repositories to the run's collection; returns its slug."""
    slug = hub.collect(record.collections.get(namespace), title[:TITLE_CHARACTERS], namespace, private, wanted_repositories)
    if record.collections.get(namespace) != slug:
        record.collections[namespace] = slug
        record.save()
    return slug


def _faults(repository: Repository, remote: Remote | None, mark: Mapping[str, Any], record: Record, private: bool) -> list[str]:
    """Why a repository must not be pushed to."""
    if remote is None:
        return []
    if private and not remote.private:
        return [f"{repository.name} exists and is public: change it to private in its settings on the Hub, or push without --private"]
    if mark and mark["run"] != record.run:
        return [f"{repository.name} contains another run of this name: rename the folder of this run, or delete that repository"]
    own_files = {*mark.get("files", []), MARK} if mark else set()
    foreign = [file.path for file in repository.files if file.path in remote.hashes and file.path not in own_files]
    if MARK in remote.hashes and not mark:
        foreign.append(MARK)
    if foreign:
        names = ", ".join(foreign)
        return [f"{repository.name} has files that eva did not push and would overwrite: {names}. Rename them or the run's folder"]
    return []


def _push(repository: Repository, remote: Remote | None, earlier: Mapping[str, Any], record: Record, hub: Hub, private: bool) -> Outcome:
    pushed_files = record.files.get(repository.name, {})
    hashes = {file.path: sha256(file, pushed_files) for file in repository.files}
    mark = _mark(record, earlier, hashes)
    hashes[MARK] = sha256(mark, {})
    changed_files = hub.changed_files([*repository.files, mark], hashes, remote)
    if not changed_files and remote is not None:
        commit = remote.commit
    else:
        commit = hub.commit(repository, changed_files, private, f"eva push: {len(changed_files)} files")
    sources = {file.path: file.source for file in repository.files}
    file_entries = {path: {"sha256": digest, "source": sources.get(path)} for path, digest in hashes.items()}
    entry = {"commit": commit, "files": {**(pushed_files if remote is not None else {}), **file_entries}}
    entry_before = record.repositories.get(repository.name, {})
    if {**entry_before, "pushed": None} != {**entry, "pushed": None}:
        record.repositories[repository.name] = {**entry, "pushed": utc_now()}
        record.save()
    return _outcome(repository, changed_files, commit)


def _mark(record: Record, earlier: Mapping[str, Any], hashes: Mapping[str, str]) -> File:
    """`eva.json`: the run, its files in the repository, and their hashes, which `eva pull` checks."""
    paths = {*earlier.get("files", []), *hashes} - {MARK}
    known_hashes = {**earlier.get("sha256", {}), **hashes}
    document = {"run": record.run, "files": sorted(paths), "sha256": {path: known_hashes[path] for path in sorted(paths & {*known_hashes})}}
    return File(MARK, (json.dumps(document, indent=1) + "\n").encode())
