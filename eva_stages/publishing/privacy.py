"""Values that must not leave the machine: absolute paths, the user's name in them, tokens and keys.

Recipes, manifests, pipelines and events are settings, so a path in them shrinks to its last part, or to its place in the run, and the
addresses of servers are left out, as are the names of private networks. Rows are data: in them only secrets, the home folder, the path of
the run and the names of servers are replaced, and every changed value is counted; the messages of errors lose all absolute paths and the
name of this machine. What a secret is says `core.redaction`.
"""

import os
import re
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from eva_stages.core.harmless import map_leaves
from eva_stages.core.redaction import Secrets, secrets
from eva_stages.core.rows import MESSAGES_OF_ERRORS

SERVER = "[server]"
SYSTEM = ("/usr", "/usr/local")
"""Folders that every machine has, where Python may be: they reveal nothing, and prompts about shells contain them."""
LOCAL = ("localhost", "127.0.0.1", "[::1]")
PRIVATE_FIELDS = ("api_base", "address", "holder")
"""Fields of recipes and events that name a machine: they are not published."""
MESSAGE_FIELDS = ("failures", "notices", "cause")
"""Fields of manifests and events with messages of errors."""
ADDRESS_VARIABLES = re.compile(r"(?i)(?:_PROXY|API_BASE|BASE_URL|HF_ENDPOINT)$")
"""Environment variables with the address of a server that libraries call."""
PUBLIC_HOSTS = ("huggingface.co", "api.openai.com", "api.anthropic.com")
PRIVATE_NETWORK = re.compile(
    r"(?<![\w.])(?:10(?:\.\d{1,3}){3}|192\.168(?:\.\d{1,3}){2}|172\.(?:1[6-9]|2\d|3[01])(?:\.\d{1,3}){2})(?![\w.]*\w)"
    r"|(?<![\w.-])(?:[a-z0-9](?:[\w-]*\.)+)(?:internal|local|localdomain|lan|corp|intranet|home\.arpa)(?![\w-]|\.\w)"
)
"""Addresses that only exist within a network."""
ANY_PATH = re.compile(r"(?<![\w./:])~?(?:/[\w.@+-]+){2,}/?")
USER_IN_URL = re.compile(r"(?<=://)[^/@\s]+@")


@dataclass(frozen=True)
class Privacy:
    """The private values of this machine, for one run."""

    root: Path
    """Folder of the run; paths below it become relative to it."""
    tokens: tuple[str, ...] = ()
    """Secrets that are in no environment variable."""
    hosts: tuple[str, ...] = ()
    """Names of servers that the run called."""

    @cached_property
    def secrets(self) -> Secrets:
        return secrets(self.tokens)

    @cached_property
    def places(self) -> dict[str, str]:
        """Folders that identify this machine, longest first, with their replacements."""
        short_names = {sys.prefix: "python", str(Path.home()): "~", str(Path.cwd()): ".", str(self.root.resolve()): ""}
        public_names = {place: short for place, short in short_names.items() if place not in SYSTEM}
        telling = {place: short for place, short in public_names.items() if place.count("/") > 1 or (short in ("~", "") and place != "/")}
        return dict(sorted(telling.items(), key=lambda entry: -len(entry[0])))

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        places = [rf"(?<![\w.]){re.escape(place)}(?![\w-])/?" for place in self.places]
        hosts = [rf"(?i:(?<![\w.-]){re.escape(host)}(?![\w-]))" for host in self.hosts]
        return re.compile("|".join([*places, *hosts]) or r"(?!)")

    def text(self, text: str) -> str:
        """A text without known private values."""
        return self.pattern.sub(self._replacement, self.secrets.hide(text))

    def _replacement(self, match: re.Match[str]) -> str:
        place = match.group().removesuffix("/")
        if place not in self.places:
            return SERVER
        return self.places[place] and match.group().replace(place, self.places[place])

    def message(self, text: str) -> str:
        """An error message without any absolute path and any name of a machine."""
        plain = PRIVATE_NETWORK.sub(SERVER, _own_name().sub(SERVER, self.text(self.secrets.redact(text))))
        return ANY_PATH.sub(lambda match: match.group().rstrip("/").rpartition("/")[2], plain)

    def messages(self, value: Any) -> Any:
        """What a message field contains: texts, or texts with counts."""
        match value:
            case dict():
                return {self.message(str(key)): self.messages(item) for key, item in value.items()}
            case list() | tuple():
                return [self.messages(item) for item in value]
            case str():
                return self.message(value)
            case _:
                return value

    def settings(self, value: Any) -> Any:
        """A recipe, a manifest, a pipeline or an event, every path in it shortened."""
        match value:
            case dict():
                return {
                    self.settings(key): self.messages(item) if key in MESSAGE_FIELDS else self.settings(item)
                    for key, item in value.items()
                    if key not in PRIVATE_FIELDS
                }
            case list() | tuple():
                return [self.settings(item) for item in value]
            case str():
                return self._setting(value)
            case _:
                return value

    def _setting(self, text: str) -> str:
        text = USER_IN_URL.sub("", text)
        if not _is_path(text):
            return PRIVATE_NETWORK.sub(SERVER, self.text(text))
        path = _expanded_path(text)
        root = self.root.resolve()
        return str(path.relative_to(root)) if path.is_absolute() and path.is_relative_to(root) else self.text(path.name)

    def table(self, table: pa.Table) -> tuple[pa.Table, int]:
        """A table of rows, and how many of its values had to be changed."""
        changed_values = 0
        for index, name in enumerate(table.column_names):
            clean = self.message if name in MESSAGES_OF_ERRORS else self.text
            if not self._suspicious(table[name], name in MESSAGES_OF_ERRORS):
                continue
            values_before = table[name].to_pylist()
            values_after = [_clean_texts(value, clean) for value in values_before]
            changed_values += sum(old != new for old, new in zip(values_before, values_after, strict=True))
            table = table.set_column(
                index, table.schema.field(index), pa.chunked_array([pa.array(values_after, table.schema.field(index).type)])
            )
        return table, changed_values

    def _suspicious(self, column: pa.ChunkedArray, message: bool) -> bool:
        words = (*self.secrets.anchors, *self.places, *self.hosts)
        patterns = [*map(re.escape, words), *([r"/[^/]+/", r".{20}"] if message else [])]  # no credential is as short as that
        leaves = [leaf for chunk in column.chunks for leaf in _strings(chunk)]
        return any(pc.any(pc.match_substring_regex(leaf, "|".join(patterns))).as_py() for leaf in leaves)


def hosts_of(recipe: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the servers that a recipe calls."""
    return _hosts(_addresses(recipe))


def hosts_of_environment() -> tuple[str, ...]:
    """The names of the servers, such as proxies, that the environment names for the calls of all libraries."""
    return _hosts(value for name, value in os.environ.items() if ADDRESS_VARIABLES.search(name))


def _hosts(addresses: Iterable[str]) -> tuple[str, ...]:
    hosts = {host for address in addresses for host in re.findall(r"//(?:[^/@]*@)?(\[[^\]]*\]|[^/:?#]+)", address)}
    return tuple(sorted(hosts - {*LOCAL, *PUBLIC_HOSTS}))


@cache
def _own_name() -> re.Pattern[str]:
    """This machine's name as a complete word; nothing if it is a usual word."""
    names = {name for name in (socket.gethostname(), socket.getfqdn()) if name not in LOCAL and re.search(r"[\d.-]", name)}
    return re.compile("|".join(rf"(?<![\w.-]){re.escape(name)}(?![\w-])" for name in sorted(names, key=len, reverse=True)) or r"(?!)")


def _addresses(value: Any) -> Iterator[str]:
    match value:
        case dict():
            for key, item in value.items():
                if key in PRIVATE_FIELDS and isinstance(item, str):
                    yield item
                yield from _addresses(item)
        case list():
            for item in value:
                yield from _addresses(item)


def _is_path(text: str) -> bool:
    """Whether a setting is a path of this machine rather than a text or a Hub id."""
    if "\n" in text or "/" not in text:
        return False
    if os.path.lexists(_expanded_path(text)):
        return True
    return text.startswith(("/", "~/", "./", "../")) and text.count("/") > 1 and not re.search(r"\s", text)


def _expanded_path(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # ~name of an unknown user
        return Path(text)


def _strings(array: pa.Array) -> list[pa.Array]:
    """The string arrays inside a nested one."""
    kind = array.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _strings(array.flatten())
    if pa.types.is_struct(kind):
        return [leaf for index in range(kind.num_fields) for leaf in _strings(array.field(index))]
    return [array] if pa.types.is_string(kind) or pa.types.is_large_string(kind) else []


def _clean_texts(value: Any, clean: Callable[[str], str]) -> Any:
    return map_leaves(value, lambda leaf: clean(leaf) if isinstance(leaf, str) else leaf)
