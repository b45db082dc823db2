"""Access to the Hub through `huggingface_hub`: the account, the remote files, and one commit per repository with the changed files.

The client retries uploads but neither commits nor the creation of repositories, and has no time-out; here every call has a time-out
and is retried. A commit whose response was lost is not repeated, because each try first reads the remote files. Nothing is
deleted, and files that eva did not write are not overwritten: `eva.json` in each repository lists eva's files.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi, constants, get_session, get_token
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]
from huggingface_hub.utils.sha import git_hash

from eva_stages.core.errors import ConfigError, HubError
from eva_stages.core.redaction import redact
from eva_stages.publishing.repository import File, Repository

MARK = "eva.json"
TRIES = 6
TRANSIENT = (429, 500, 502, 503, 504)
TIMEOUT_SECONDS = 120.0
TOKENS_PAGE = "https://huggingface.co/settings/tokens"

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Remote:
    """A repository as it is on the Hub."""

    commit: str
    private: bool
    hashes: dict[str, str]
    """Of each file: sha256 if it is in large file storage, else git's own hash."""
    large: frozenset[str]
    sizes: dict[str, int]
    """Bytes of each file."""


class Hub:
    """The Hub, for one account. `say` reports retries."""

    def __init__(self, say: Callable[[str], None], reads_only: bool = False) -> None:
        """Args:
            reads_only: public repositories can be read without a token.

        Raises:
            ConfigError: if there is no token.
        """
        self.token = get_token()
        if self.token is None and not reads_only:
            raise ConfigError(
                [f"there is no Hugging Face token: create one with write permission at {TOKENS_PAGE}, then `hf auth login` or set HF_TOKEN"]
            )
        self._say = say
        if not sys.stderr.isatty():
            disable_progress_bars()
        self.api = HfApi(token=self.token, library_name="eva-align")

    def check_account(self, namespace: str) -> None:
        """Raises:
        ConfigError: if the token is not accepted, has read permission only, or cannot write to `namespace`.
        HubError: if the Hub cannot be reached.
        """
        me = self._try("looking up the owner of the token", self.api.whoami)
        if me["auth"]["accessToken"]["role"] == "read":
            owner = me["name"]
            advice = f"create one with write permission at {TOKENS_PAGE} and set HF_TOKEN to it"
            raise ConfigError([f"the token of {owner} has read permission only: {advice}"])
        allowed_names = [me["name"], *(organisation["name"] for organisation in me.get("orgs", []))]
        if namespace not in allowed_names:
            raise ConfigError([f"the token of {me['name']} cannot push to {namespace}; it can push to {', '.join(allowed_names)}"])

    def remote(self, repository: Repository) -> Remote | None:
        """The repository as it is on the Hub; None if it does not exist."""
        try:
            return self._try(f"listing {repository.name}", lambda: self._look(repository))
        except RepositoryNotFoundError:
            return None

    def _look(self, repository: Repository) -> Remote:
        info = self.api.repo_info(repository.id, repo_type=repository.kind)
        commit, private = str(info.sha), bool(info.private)
        tree = self.api.list_repo_tree(repository.id, recursive=True, revision=commit, repo_type=repository.kind)
        files = [entry for entry in tree if isinstance(entry, RepoFile)]
        hashes = {file.path: file.lfs.sha256 if file.lfs else file.blob_id for file in files}
        return Remote(commit, private, hashes, frozenset(file.path for file in files if file.lfs), {file.path: file.size for file in files})

    def mark(self, repository: Repository, remote: Remote | None) -> dict[str, Any]:
        """Whose repository it is (run), which files are eva's (files) and their hashes (sha256); empty if it has no `eva.json`."""
        if remote is None or MARK not in remote.hashes:
            return {}
        try:
            place = self._try(
                f"reading {MARK} of {repository.name}",
                lambda: self.api.hf_hub_download(repository.id, MARK, repo_type=repository.kind, revision=remote.commit),
            )
            mark = json.loads(Path(place).read_text(encoding="utf-8"))
            hashes = {str(path): str(digest) for path, digest in mark.get("sha256", {}).items()}  # pushes of eva 0.1.0 have none
            return {"run": str(mark["run"]), "files": [str(path) for path in mark["files"]], "sha256": hashes}
        except (ValueError, KeyError, TypeError, AttributeError):
            return {}

    def download(self, repository: Repository, paths: Sequence[str], commit: str, folder: Path) -> None:
        """Have files of a commit below `folder`, in the repository's layout. Files that are there are not fetched again, and a file that
        was cut off goes on. Nothing in the files is executed.
        """
        self._try(
            f"fetching from {repository.name}",
            lambda: self.api.snapshot_download(
                repository.id, repo_type=repository.kind, revision=commit, allow_patterns=list(paths), local_dir=folder
            ),
        )

    def changed_files(self, files: Sequence[File], hashes: dict[str, str], remote: Remote | None) -> list[File]:
        """The files that the repository does not have as they are. `hashes` are sha256 by path."""
        if remote is None:
            return list(files)
        return [file for file in files if remote.hashes.get(file.path) != _own_hash(file, hashes, remote)]

    def commit(self, repository: Repository, files: Sequence[File], private: bool, message: str) -> str:
        """Create the repository if it is not there, and commit the files; returns the commit."""
        try:
            self._try(
                f"creating {repository.name}",
                lambda: self.api.create_repo(repository.id, repo_type=repository.kind, private=private or None, exist_ok=True),
            )
            info = self._try(f"pushing {repository.name}", lambda: self._create_commit(repository, files, message))
        except RepositoryNotFoundError as error:
            raise HubError(f"pushing {repository.name}: it was deleted, or the token has no access to it") from error
        return str(info.oid)

    def _create_commit(self, repository: Repository, files: Sequence[File], message: str) -> CommitInfo:
        operations = [CommitOperationAdd(file.path, file.content) for file in files]  # the client marks them: new ones for each try
        return self.api.create_commit(repository.id, operations, commit_message=message, repo_type=repository.kind)

    def collect(self, slug: str | None, title: str, namespace: str, private: bool, repositories: Sequence[Repository]) -> str:
        """Have all repositories in the run's collection; returns its slug."""
        doing = f"the collection {title}"
        if slug is None:
            collection = self._try(doing, lambda: self.api.create_collection(title, namespace=namespace, private=private, exists_ok=True))
        else:
            collection = self._try(doing, lambda: self.api.get_collection(slug))
        present = {(item.item_type, item.item_id) for item in collection.items}
        for repository in repositories:
            if (repository.kind, repository.id) not in present:
                self._add(collection.slug, repository, doing)
        return str(collection.slug)

    def _add(self, slug: str, repository: Repository, doing: str) -> None:
        self._try(doing, lambda: self.api.add_collection_item(slug, repository.id, repository.kind, exists_ok=True))

    def _try(self, doing: str, call: Callable[[], Answer]) -> Answer:
        """Call until it succeeds, at most `TRIES` times.

        Raises:
            RepositoryNotFoundError: unchanged; callers test whether a repository exists.
        """
        for attempt in range(TRIES):
            get_session().timeout = httpx.Timeout(float(os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT", TIMEOUT_SECONDS)))
            try:
                return call()
            except RepositoryNotFoundError:
                raise
            except HfHubHTTPError as error:
                status = error.response.status_code
                if status not in TRANSIENT or attempt == TRIES - 1:
                    raise self._refusal(doing, status, error) from error
                wait, cause = _requested_wait(error.response, attempt), f"the Hub answered {status}"
            except httpx.TransportError as error:
                if attempt == TRIES - 1:
                    raise HubError(f"{doing}: the Hub at {constants.ENDPOINT} cannot be reached ({type(error).__name__})") from error
                wait, cause = 2.0**attempt, type(error).__name__
            except (RuntimeError, OSError, ValueError) as error:  # how the client reports uploads and cards that failed for good
                raise HubError(f"{doing}: {_words(error.__cause__ or error)}; run the same command again to resume") from error
            self._say(f"{doing}: {cause}; retrying in {wait:.0f} s")
            time.sleep(wait)
        raise AssertionError("the last try returns or raises")

    def _refusal(self, doing: str, status: int, error: HfHubHTTPError) -> Exception:
        if status == 401:
            return ConfigError([f"{doing}: the Hub does not accept the token; create a new one at {TOKENS_PAGE} and set HF_TOKEN to it"])
        if status == 403:
            return ConfigError(
                [f"{doing}: the token has no permission for that; create one that can write there at {TOKENS_PAGE} and set HF_TOKEN to it"]
            )
        return HubError(f"{doing}: {_words(error)}; uploaded files are saved; run the same command again to resume")


def _words(error: BaseException) -> str:
    return redact(" ".join(str(error).split()))


def _requested_wait(response: httpx.Response, attempt: int) -> float:
    retry_after = response.headers.get("Retry-After", "")
    return float(retry_after) if retry_after.isdigit() else 2.0**attempt


def _own_hash(file: File, hashes: dict[str, str], remote: Remote) -> str:
    if file.path in remote.large or file.path not in remote.hashes:
        return hashes[file.path]
    content = file.content if isinstance(file.content, bytes) else file.content.read_bytes()
    return git_hash(content)
