"""A local server with the part of the Hub's HTTP API that eva and the libraries that load from the Hub use.

It has repositories with commits and files in git or in large file storage (with its batch protocol, in one part or several), collections,
and a validation of cards. It fails on demand: each of `faults` is used once, by the first request that matches it.
"""

import base64
import hashlib
import json
import re
import socket
import threading
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import huggingface_hub.constants
import pytest

from tests.fault_server import serving
from tests.hub_cards_check import card_faults

HANG_SECONDS = 6.0
LARGE = (".parquet", ".safetensors")
PART_BYTES = 1 << 20
WRITER, READER, STRANGER = "hf_writer_0123456789", "hf_reader_0123456789", "hf_stranger_0123456789"
ACCOUNTS = {WRITER: ("tester", "write"), READER: ("tester", "read"), STRANGER: ("stranger", "write")}
REPO = r"(?P<kind>models|datasets)/(?P<id>[^/]+/[^/]+)"


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Commit:
    oid: str
    files: dict[str, tuple[bytes, bool]]
    """Content, and whether it is in large file storage."""


@dataclass
class Repo:
    private: bool
    commits: list[Commit] = field(default_factory=list)

    def at(self, revision: str) -> Commit | None:
        if revision in ("main", "HEAD", "refs/heads/main"):
            return self.commits[-1]
        return next((commit for commit in self.commits if commit.oid == revision), None)

    def add(self, files: dict[str, tuple[bytes, bool]]) -> Commit:
        whole = {**(self.commits[-1].files if self.commits else {}), **files}
        identity = json.dumps([len(self.commits), *sorted((name, hashlib.sha256(data).hexdigest()) for name, (data, _) in whole.items())])
        self.commits.append(Commit(hashlib.sha1(identity.encode()).hexdigest(), whole))
        return self.commits[-1]


@dataclass
class Fault:
    """`kind`: a status code, hang, cut, or lost (the request is executed, the reply is not sent); `path` is a regular expression."""

    kind: str
    method: str
    path: str


class HubServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.collections: dict[str, dict[str, Any]] = {}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.bodies: list[bytes] = []
        self.guard = threading.RLock()
        self.stop_at = ""
        """Requests to this path (a regular expression) get no reply and set `request_stopped`."""
        self.request_stopped = threading.Event()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def files(self, name: str) -> dict[str, bytes]:
        """The files of a repository, such as datasets/user/name, at its newest commit."""
        return {path: content for path, (content, _) in self.repos[name].commits[-1].files.items()}

    def count_requests(self, method: str, pattern: str) -> int:
        """How many requests had this method and a path that matches the pattern."""
        return sum(verb == method and re.search(pattern, path) is not None for verb, path in self.requests)

    def take_fault(self, method: str, path: str) -> str | None:
        with self.guard:
            for fault in self.faults:
                if fault.method == method and re.search(fault.path, path):
                    self.faults.remove(fault)
                    return fault.kind
        return None


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._serve("GET")

    def do_HEAD(self) -> None:
        self._serve("HEAD")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_PUT(self) -> None:
        self._serve("PUT")

    # --- dispatch

    def _serve(self, method: str) -> None:
        url = urlsplit(self.path)
        self.query, path = parse_qs(url.query), unquote(url.path)
        body = self._body()
        with self.server.guard:
            self.server.requests.append((method, path))
            if body:
                self.server.bodies.append(body)
        if self.server.stop_at and re.search(self.server.stop_at, path):
            self.server.request_stopped.set()
            self.connection.recv(1)  # returns when the client disconnects
            return
        fault = self.server.take_fault(method, path)
        self.mute = fault == "lost"
        if fault == "hang":
            time.sleep(HANG_SECONDS)
            self.close_connection = True
        elif fault == "cut":
            self.connection.shutdown(socket.SHUT_RDWR)
        elif fault is not None and fault.isdigit():
            self._json({"error": f"scripted {fault}"}, int(fault), {"Retry-After": "1"} if fault == "429" else {})
        else:
            self._route(method, path, body)

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _route(self, method: str, path: str, body: bytes) -> None:
        for verb, pattern, handle in ROUTES:
            if verb == method and (match := re.fullmatch(pattern, path)):
                handle(self, body, **match.groupdict())
                return
        self._json({"error": f"no route for {method} {path}"}, 404)

    def _send(self, code: int, body: bytes, headers: dict[str, str]) -> None:
        if self.mute:
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, document: Any, code: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(code, json.dumps(document).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _absent(self, code: str, message: str) -> None:
        self._json({"error": message}, 404, {"X-Error-Code": code, "X-Error-Message": message})

    # --- accounts and repositories

    @property
    def account(self) -> tuple[str, str] | None:
        return ACCOUNTS.get(self.headers.get("Authorization", "").removeprefix("Bearer "))

    def _may_write(self, namespace: str) -> bool:
        if self.account is None:
            self._json({"error": "Invalid username or password."}, 401)
        elif self.account != (namespace, "write"):
            self._json({"error": "You don't have the rights to do this"}, 403)
        return self.account == (namespace, "write")

    def _repo(self, kind: str, id: str) -> Repo | None:
        repo = self.server.repos.get(f"{kind}/{id}")
        is_hidden = repo is not None and repo.private and (self.account is None or self.account[0] != id.partition("/")[0])
        if repo is None or is_hidden:
            self._absent("RepoNotFound", "Repository not found")
            return None
        return repo

    def _commit(self, kind: str, id: str, revision: str) -> Commit | None:
        repo = self._repo(kind, id)
        if repo is None:
            return None
        commit = repo.at(revision)
        if commit is None:
            self._absent("RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    # --- routes

    def whoami(self, body: bytes) -> None:
        if self.account is None:
            self._json({"error": "Invalid username or password."}, 401)
            return
        name, role = self.account
        self._json({"type": "user", "name": name, "orgs": [], "auth": {"accessToken": {"displayName": "test", "role": role}}})

    def create_repo(self, body: bytes) -> None:
        request = json.loads(body)
        namespace = request.get("organization") or (self.account or ("", ""))[0]
        if not self._may_write(namespace):
            return
        kind, id = f"{request.get('type', 'model')}s", f"{namespace}/{request['name']}"
        url = f"{self.server.base}/{'datasets/' if kind == 'datasets' else ''}{id}"
        with self.server.guard:
            if f"{kind}/{id}" in self.server.repos:
                self._json({"error": "You already created this repo", "url": url}, 409)
                return
            repo = self.server.repos[f"{kind}/{id}"] = Repo(request.get("visibility") == "private")
            repo.add({".gitattributes": (b"*.parquet filter=lfs\n", False)})
        self._json({"url": url, "name": id})

    def info(self, body: bytes, kind: str, id: str, revision: str | None = None) -> None:
        commit = self._commit(kind, id, revision or "main")
        if commit is None:
            return
        siblings = [{"rfilename": path} for path in sorted(commit.files)]
        private = self.server.repos[f"{kind}/{id}"].private
        card = {"id": id, "sha": commit.oid, "private": private, "siblings": siblings, "tags": [], "gated": False, "disabled": False}
        self._json({**card, "downloads": 0, "likes": 0, "lastModified": "2026-01-01T00:00:00.000Z"})

    def tree(self, body: bytes, kind: str, id: str, revision: str, folder: str | None = None) -> None:
        commit = self._commit(kind, id, revision)
        if commit is None:
            return
        prefix = f"{folder}/" if folder else ""
        paths = [path for path in sorted(commit.files) if path.startswith(prefix)]
        if folder and not paths:
            self._absent("EntryNotFound", f"{folder} does not exist")
            return
        self._json(self._entries(commit, paths, prefix, self.query.get("recursive", ["false"])[0].lower() in ("true", "1")))

    def paths_info(self, body: bytes, kind: str, id: str, revision: str) -> None:
        commit = self._commit(kind, id, revision)
        if commit is None:
            return
        text = body.decode()
        wanted_paths = json.loads(text)["paths"] if text.startswith("{") else parse_qs(text)["paths"]
        files = [self._entry(commit, path) for path in wanted_paths if path in commit.files]
        folders = [
            {"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in wanted_paths if self._is_folder(commit, path)
        ]
        self._json([*files, *folders])

    def _is_folder(self, commit: Commit, path: str) -> bool:
        return path not in commit.files and any(file.startswith(f"{path}/" if path else "") for file in commit.files)

    def _entries(self, commit: Commit, paths: list[str], prefix: str, recursive: bool) -> list[dict[str, Any]]:
        folders = {path[len(prefix) :].partition("/")[0] for path in paths if "/" in path[len(prefix) :]}
        if recursive:
            folders = {path.rpartition("/")[0] for path in paths if "/" in path}
        listed_paths = [path for path in paths if recursive or "/" not in path[len(prefix) :]]
        directories = [{"type": "directory", "path": name if recursive else prefix + name, "oid": "0" * 40, "size": 0} for name in folders]
        return [*directories, *(self._entry(commit, path) for path in listed_paths)]

    def _entry(self, commit: Commit, path: str) -> dict[str, Any]:
        content, large = commit.files[path]
        entry = {"type": "file", "path": path, "size": len(content), "oid": git_oid(content)}
        sha256 = hashlib.sha256(content).hexdigest()
        return {**entry, "lfs": {"oid": sha256, "size": len(content), "pointerSize": 130}} if large else entry

    def resolve(self, body: bytes, id: str, revision: str, path: str, prefix: str | None = None) -> None:
        commit = self._commit("datasets" if prefix else "models", id, revision)
        if commit is None:
            return
        if path not in commit.files:
            self._json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit.oid})
            return
        content, large = commit.files[path]
        etag = hashlib.sha256(content).hexdigest() if large else git_oid(content)
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{etag}"', "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        if large:
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(content))}
        byte_range = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if byte_range is None:
            self._send(200, content, headers)
            return
        start, end = int(byte_range[1]), int(byte_range[2] or len(content) - 1)
        self._send(206, content[start : end + 1], {**headers, "Content-Range": f"bytes {start}-{end}/{len(content)}"})

    def preupload(self, body: bytes, kind: str, id: str, revision: str) -> None:
        repo = self._repo(kind, id)
        if repo is None or not self._may_write(id.partition("/")[0]):
            return
        present_files = repo.commits[-1].files
        modes = []
        for file in json.loads(body)["files"]:
            large = file["path"].endswith(LARGE)
            mode = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            if file["path"] in present_files:
                content = present_files[file["path"]][0]
                mode["oid"] = hashlib.sha256(content).hexdigest() if large else git_oid(content)
            modes.append(mode)
        self._json({"files": modes})

    def lfs_batch(self, body: bytes, id: str, prefix: str | None = None) -> None:
        if not self._may_write(id.partition("/")[0]):
            return
        requested_objects = [(entry["oid"], entry["size"]) for entry in json.loads(body)["objects"]]
        self._json({"transfer": "basic", "objects": [self._lfs_object(id, oid, size) for oid, size in requested_objects]})

    def _lfs_object(self, id: str, oid: str, size: int) -> dict[str, Any]:
        if oid in self.server.objects:
            return {"oid": oid, "size": size}
        verify = {"href": f"{self.server.base}/lfs-verify/{id}"}
        store = f"{self.server.base}/storage/{oid}"
        upload: dict[str, Any] = {"href": store}
        if size > PART_BYTES:
            count = -(-size // PART_BYTES)
            parts = {str(number): f"{store}/{number}" for number in range(1, count + 1)}
            upload = {"href": f"{store}/complete", "header": {"chunk_size": str(PART_BYTES), **parts}}
        return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}}

    def store(self, body: bytes, oid: str) -> None:
        self._keep(oid, body)

    def store_part(self, body: bytes, oid: str, number: str) -> None:
        with self.server.guard:
            self.server.parts.setdefault(oid, {})[int(number)] = body
        self._send(200, b"", {"ETag": f'"{hashlib.md5(body).hexdigest()}"'})

    def complete(self, body: bytes, oid: str) -> None:
        parts = self.server.parts.pop(oid)
        requested_parts = json.loads(body)["parts"]
        tags = [f'"{hashlib.md5(parts[part["partNumber"]]).hexdigest()}"' for part in requested_parts]
        assert tags == [part["etag"] for part in requested_parts]
        self._keep(oid, b"".join(parts[number] for number in sorted(parts)))

    def _keep(self, oid: str, content: bytes) -> None:
        if hashlib.sha256(content).hexdigest() != oid:
            self._json({"error": "content does not have the hash that was announced"}, 400)
            return
        with self.server.guard:
            self.server.objects[oid] = content
        self._json({})

    def verify(self, body: bytes, id: str) -> None:
        request = json.loads(body)
        is_present = len(self.server.objects.get(request["oid"], b"")) == request["size"]
        self._json({} if is_present else {"error": "not there"}, 200 if is_present else 404)

    def validate(self, body: bytes) -> None:
        request = json.loads(body)
        faults = card_faults(request["content"], request["repoType"])
        self._json({"errors": [{"message": fault} for fault in faults], "warnings": []}, 400 if faults else 200)

    def commit(self, body: bytes, kind: str, id: str, revision: str) -> None:
        repo = self._repo(kind, id)
        if repo is None or not self._may_write(id.partition("/")[0]):
            return
        files: dict[str, tuple[bytes, bool]] = {}
        for line in body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            match operation["key"]:
                case "header":
                    continue
                case "file":
                    files[value["path"]] = (base64.b64decode(value["content"]), False)
                case "lfsFile":
                    files[value["path"]] = (self.server.objects[value["oid"]], True)
                case operation_key:
                    self._json({"error": f"this server never deletes or copies: {operation_key}"}, 400)
                    return
        with self.server.guard:
            oid = repo.add(files).oid
        self._json({"success": True, "commitOid": oid, "commitUrl": f"{self.server.base}/{id}/commit/{oid}", "hookOutput": ""})

    def list_collections(self, body: bytes) -> None:
        self._json(list(self.server.collections.values()))

    def create_collection(self, body: bytes) -> None:
        request = json.loads(body)
        if not self._may_write(request["namespace"]):
            return
        slug = f"{request['namespace']}/{re.sub(r'[^a-z0-9]+', '-', request['title'].lower())}-0123456789abcdef01234567"
        with self.server.guard:
            if slug in self.server.collections:
                self._json({"error": "it exists", "slug": slug}, 409)
                return
            collection = {key: request[key] for key in ("title", "private")}
            rest = {"slug": slug, "owner": {"name": request["namespace"]}, "items": [], "lastUpdated": "2026-01-01T00:00:00.000Z"}
            self.server.collections[slug] = {**collection, **rest, "position": 0, "theme": "blue", "upvotes": 0}
        self._json(self.server.collections[slug])

    def get_collection(self, body: bytes, slug: str) -> None:
        self._json(self.server.collections[slug])

    def add_item(self, body: bytes, slug: str) -> None:
        if not self._may_write(slug.partition("/")[0]):
            return
        item = json.loads(body)["item"]
        items = self.server.collections[slug]["items"]
        if any((present_item["type"], present_item["id"]) == (item["type"], item["id"]) for present_item in items):
            self._json({"error": "it exists"}, 409)
            return
        items.append({**item, "_id": f"{len(items):024x}", "position": len(items)})
        self._json(self.server.collections[slug])


ANY_REPO = r"/(?P<prefix>datasets/)?(?P<id>[^/]+/[^/]+?)"
ROUTES = [
    ("GET", "/api/whoami-v2", _Handler.whoami),
    ("POST", "/api/repos/create", _Handler.create_repo),
    ("POST", "/api/validate-yaml", _Handler.validate),
    ("GET", f"/api/{REPO}", _Handler.info),
    ("GET", f"/api/{REPO}/revision/(?P<revision>[^/]+)", _Handler.info),
    ("GET", f"/api/{REPO}/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?", _Handler.tree),
    ("POST", f"/api/{REPO}/paths-info/(?P<revision>[^/]+)", _Handler.paths_info),
    ("POST", f"/api/{REPO}/preupload/(?P<revision>[^/]+)", _Handler.preupload),
    ("POST", f"/api/{REPO}/commit/(?P<revision>[^/]+)", _Handler.commit),
    ("POST", rf"{ANY_REPO}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", r"/storage/(?P<oid>\w+)", _Handler.store),
    ("PUT", r"/storage/(?P<oid>\w+)/(?P<number>\d+)", _Handler.store_part),
    ("POST", r"/storage/(?P<oid>\w+)/complete", _Handler.complete),
    ("POST", r"/lfs-verify/(?P<id>.+)", _Handler.verify),
    ("GET", "/api/collections", _Handler.list_collections),
    ("POST", "/api/collections", _Handler.create_collection),
    ("POST", r"/api/collections/(?P<slug>.+)/items?", _Handler.add_item),
    ("GET", r"/api/collections/(?P<slug>.+)", _Handler.get_collection),
    ("GET", f"{ANY_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
    ("HEAD", f"{ANY_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
]


def hub_server() -> AbstractContextManager[HubServer]:
    return serving(HubServer())


def use_hub(server: HubServer, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point the Hub's client in this process at the server."""
    constants = {
        "ENDPOINT": server.base,
        "HUGGINGFACE_CO_URL_TEMPLATE": f"{server.base}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_CACHE": str(cache),
    }
    for name, value in constants.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)
