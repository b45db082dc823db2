"""Secrets are taken out of every text on its way to a disk, a terminal or the Hub.

Secrets are the values of environment variables with a secret-like name, of those that recipes name in `api_key_env`, the Hub token's
file, and passwords in the URLs of any variable. Servers and libraries echo them whole, cut, quoted or encoded, so every part of `PART`
characters of every usual form is removed, before any text is cut. Messages also lose what looks like a credential though no variable
holds it: the user of a URL, authorization headers, keys with a known prefix. Data (prompts, responses) loses known secrets only.
A password of fewer than `SHORTEST` characters stays: such values are words and numbers that stand everywhere.
"""

import base64
import html
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, unquote

REMOVED = "[removed]"
VARIABLES = "EVA_SECRET_VARIABLES"
"""Environment variable with the names of further variables that hold secrets; what eva starts inherits it."""
PART, ANCHOR = 12, 6
"""Characters of a secret's shortest part that is removed. Each such part holds a whole block of `ANCHOR` characters of the secret."""
STRIDE = PART - ANCHOR + 1
"""Every part in a text covers `ANCHOR` characters that begin at a multiple of this."""
SHORTEST = 8
LONGEST_WORD = 15

_SECRET_NAME = re.compile(
    r"(?<!MON)(?<!TUR)KEY(?!WORD|BOARD|MAP|CHAIN|RING)|TOKEN(?!IZ)|SECRET|PASSW(?:OR)?D|PASSPHRASE|CREDENTIAL|AUTH(?!OR)|AUTHORIZATION|(?:^|_)(?:PASS|PAT|DSN|COOKIE)(?:_|$)|_PWD$"
)
_PASSWORD_NAME = re.compile(r"PASS|SECRET|CREDENTIAL|PWD")
_HARMLESS = frozenset({"disabled", "required", "optional", "password", "userpass", "external", "internal", "automatic"})
_WORD = rf"[a-z_-]{{1,{LONGEST_WORD}}}"
_WORDS = re.compile(rf"{_WORD}|(?!(?i:bearer|basic|token)\b)(?:[A-Z]?{_WORD}[ ,]+)+[A-Z]?{_WORD}")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_USER = re.compile(r"//([^/\s\"'<>\\]+)@")
_VALUE = r"(?!\[removed)[^\s\"',;<>\\(){}\[\]]"
_HEADERS = r"(?:authorization|(?:x-)?(?:goog-)?api-?key|x-auth-token|(?:set-)?cookie(?=[^;\n]{0,99}=))"
_IS = r"(?:\\?[\"']\s*[:=,]|\s*[:=])\s*b?\\?[\"']?"
"""Between the name of a header and its value, in text, JSON and Python's pairs."""
_PARAMETERS = r"(?:api_?key|key|(?:access_)?token|auth|password|secret|sig|signature)"
_PREFIXES = r"(?:gsk_|gh[pousr]_|github_pat_|glpat-|nvapi-|xox[abeprs]-|r8_)"
_CREDENTIALS = (
    (re.compile(r"(?<=//)(?!\[removed\]@)[^/\s\"'<>\\]+(?=@)"), REMOVED),
    (re.compile(rf"(?i)({_HEADERS}{_IS}(?:(?:bearer|basic|token)\s+)?+){_VALUE}{{6,}}"), rf"\1{REMOVED}"),
    (re.compile(rf"(?i)\b(bearer\s+)(?=[^\s]*[\d_=]){_VALUE}{{8,}}"), rf"\1{REMOVED}"),
    (re.compile(r"\b((?i:basic)\s+)(?=[A-Za-z0-9+/]*[\d=])(?=[^A-Z\s]*[A-Z])[A-Za-z0-9+/]{10,}={0,2}(?![\w.-])"), rf"\1{REMOVED}"),
    (re.compile(rf"(?i)([?&]{_PARAMETERS}=)(?:(?!&){_VALUE}){{6,}}"), rf"\1{REMOVED}"),
    (re.compile(r"\b(?:sk|rk|pk)-(?=[\w-]{0,99}[\dA-Z])[\w-]{14,}"), REMOVED),
    (re.compile(rf"\b{_PREFIXES}(?=[\w-]{{0,99}}[\dA-Z])[\w-]{{14,}}"), REMOVED),
    (re.compile(r"\bhf_(?=[a-z]{0,99}[\dA-Z])[A-Za-z0-9]{14,}"), REMOVED),
    (re.compile(r"\b(?:(?:AKIA|ASIA)[0-9A-Z]{16}|AIza[\w-]{30,}|eyJ[\w-]{8,999}\.[\w-]{8,}\.[\w-]{8,})"), REMOVED),
)
"""What looks like a credential: the user of a URL, headers, parameters of URLs, keys with a known prefix."""


@dataclass(frozen=True)
class Secrets:
    """What must not be shown: `wholes` as they are, and every part of `PART` characters in `parts`."""

    wholes: tuple[str, ...]
    parts: frozenset[str]
    anchors: tuple[str, ...]
    """A text without any of these holds no secret."""
    grams: frozenset[str]
    """All sequences of `ANCHOR` characters in `parts`: a text is searched for them in one pass, however many secrets there are."""
    short: tuple[str, ...]
    """The wholes of which no part is removed."""

    def hide(self, text: str) -> str:
        """A text without the secrets and their parts."""
        if not self.wholes or (
            self.grams.isdisjoint(text[start : start + ANCHOR] for start in range(0, len(text) - ANCHOR + 1, STRIDE))
            and not any(whole in text for whole in self.short)
        ):
            return text
        spans = [(found.start(), found.end()) for whole in self.wholes for found in re.finditer(_pattern(whole), text)]
        spans += [(start, start + PART) for start in range(len(text) - PART + 1) if text[start : start + PART] in self.parts]
        pieces, done = [], 0
        for start, end in _joined(sorted(spans)):
            pieces += [text[done:start], REMOVED]
            done = end
        return "".join([*pieces, text[done:]])

    def redact(self, text: str) -> str:
        """A message without the secrets and without anything that looks like a credential."""
        text = self.hide(text)
        for pattern, replacement in _CREDENTIALS:
            text = pattern.sub(replacement, text)
        return text


def _pattern(whole: str) -> str:
    """Digits are not taken out of a longer number: a float in JSON would be one no more."""
    return rf"(?<!\d)(?<!\d\.){whole}(?!\.?\d)" if whole.isdecimal() else re.escape(whole)


def _joined(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Overlapping and touching spans as one."""
    start = end = -1
    for first, last in spans:
        if first > end:
            if end >= 0:
                yield start, end
            start = first
        end = max(end, last)
    if end >= 0:
        yield start, end


def secrets(others: Iterable[str] = ()) -> Secrets:
    """The secrets of the environment as it is now, and others that stand nowhere in it."""
    return _prepared(frozenset({value for _, value in known_secrets()} | {value for value in others if len(value) >= SHORTEST}))


def only(value: str) -> Secrets:
    """One secret alone."""
    return _prepared(frozenset({value}))


def known_secrets() -> Iterator[tuple[str, str]]:
    """Every secret with where it is from: the name of its variable or file."""
    named = secret_variables()
    for name, value in os.environ.items():
        if name == VARIABLES:  # it holds names, which stand in recipes
            continue
        if name in named or (_SECRET_NAME.search(name.upper()) and not _is_harmless(name.upper(), value)):
            yield from ((name, secret) for secret in _secrets_in(value))
        elif "@" in value and "//" in value:
            yield from ((name, secret) for secret in _in_urls(value))
    for path in _token_files():
        yield from ((str(path), word) for word in _words(path) if len(word) >= SHORTEST)


def add_secret_variable(name: str) -> None:
    """Take the value of an environment variable for a secret from now on, here and in what is started."""
    if name not in (names := secret_variables()):
        os.environ[VARIABLES] = ",".join([*names, name])


def secret_variables() -> list[str]:
    """The names of variables that were added."""
    return [name for name in os.environ.get(VARIABLES, "").split(",") if name]


def hide(text: str) -> str:
    """Data without known secrets."""
    return secrets().hide(text)


def redact(text: str) -> str:
    """A message without known secrets and without anything that looks like a credential."""
    return secrets().redact(text)


def redacted(value: Any) -> Any:
    """JSON-like data, every text in it redacted as a message, keys included."""
    return _mapped(value, secrets().redact)


def hidden(value: Any) -> Any:
    """JSON-like data, every text in it without known secrets, keys included."""
    return _mapped(value, secrets().hide)


def redacted_rows(rows: list[dict[str, Any]], messages: Iterable[str]) -> list[dict[str, Any]]:
    """Rows of data without known secrets; the columns `messages` hold the words of errors, which are redacted as messages."""
    known, columns = secrets(), frozenset(messages)
    return [{name: _mapped(value, known.redact if name in columns else known.hide) for name, value in row.items()} for row in rows]


def _mapped(value: Any, clean: Callable[[str], str]) -> Any:
    """JSON-like data with every text, keys included, put through `clean`."""
    match value:
        case str():
            return clean(value)
        case Mapping():
            return {_mapped(key, clean): _mapped(item, clean) for key, item in value.items()}
        case list() | tuple():
            return [_mapped(item, clean) for item in value]
        case _:
            return value


def _is_harmless(name: str, value: str) -> bool:
    """Whether the value of a variable with a secret-like name is none: a path, a number, a plain word."""
    path = Path(value).expanduser() if value.startswith(("~/", "/")) else Path(value)
    if (
        "\n" not in value
        and len(value) < 4096
        and (os.path.lexists(path) or (path.is_absolute() and len(path.parts) > 2 and path.parent.is_dir()))
    ):
        return True
    if value.startswith("~/") or value.lower() in _HARMLESS or (value.isdigit() and name.endswith("TOKENS")):
        return True
    return not _PASSWORD_NAME.search(name) and _WORDS.fullmatch(value) is not None


def _secrets_in(value: str) -> Iterator[str]:
    """The secrets in the value of a variable: itself, each of its lines, or the entries of its JSON."""
    data = _parsed(value)
    if data is not None:
        yield from (secret for secret in _entries(data) if len(secret) >= SHORTEST)
        return
    yield from (line for line in map(str.strip, value.splitlines()) if len(line) >= SHORTEST and not line.startswith("-----"))
    yield from _in_urls(value)


def _in_urls(value: str) -> Iterator[str]:
    """The users and passwords in URLs."""
    for user in _USER.findall(value):
        password = user.partition(":")[2] or user
        yield from (secret for secret in {user, password, unquote(password)} if len(secret) >= SHORTEST)


def _parsed(value: str) -> Any:
    """The JSON object or list that a value is; None if it is a plain text."""
    if not value.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def _entries(data: Any, is_secret: bool = False) -> Iterator[str]:
    match data:
        case dict():
            for name, item in data.items():
                yield from _entries(item, bool(_SECRET_NAME.search(str(name).upper())))
        case list():
            for item in data:
                yield from _entries(item, is_secret)
        case str() if is_secret:
            yield from (line for line in data.splitlines() if not line.startswith("-----"))


def _token_files() -> list[Path]:
    """Where `huggingface_hub` keeps tokens."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = Path(os.environ.get("HF_HOME") or f"{cache}/huggingface").expanduser()
    own = os.environ.get("HF_TOKEN_PATH")
    return [Path(own).expanduser() if own else home / "token", home / "stored_tokens"]


def _words(path: Path) -> list[str]:
    """The tokens in a file of tokens: a token, or lines of `name = token`."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [line.rpartition("=")[2].strip() for line in lines if not line.startswith("[")]


@lru_cache(maxsize=8)
def _prepared(values: frozenset[str]) -> Secrets:
    urls = {value for value in values if _URL.match(value)}
    forms = {form for value in values - urls for form in _forms(value)}
    long = [form for form in forms if len(form) >= PART]
    parts = frozenset(form[start : start + PART] for form in long for start in range(len(form) - PART + 1))
    anchors = {form[start : start + ANCHOR] for form in long for start in range(0, len(form) - ANCHOR + 1, ANCHOR)}
    wholes = sorted((form for form in forms | urls if len(form) >= SHORTEST), key=len, reverse=True)
    grams = frozenset(part[start : start + ANCHOR] for part in parts for start in range(STRIDE))
    short = {whole for whole in wholes if len(whole) < PART} | urls
    return Secrets(tuple(wholes), parts, tuple(sorted(anchors | short)), grams, tuple(sorted(short)))


def _forms(value: str) -> set[str]:
    """A secret as it stands in texts, URLs, JSON, HTML, Python's representation and, at any offset, in base64."""
    escaped = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1], html.escape(value)}
    content = value.encode(errors="surrogatepass")
    encoded = set()
    for offset in range(3):  # characters at either end depend on the neighbours too
        text = base64.b64encode(b"\0" * offset + content).decode().rstrip("=")
        inner = text[(0, 2, 3)[offset] : len(text) - ((offset + len(content)) % 3 > 0)]
        encoded |= {inner, inner.replace("+", "-").replace("/", "_")}
    return {value, quote(value, safe=""), quote(value), quote_plus(value), *escaped, *(text for text in encoded if len(text) >= SHORTEST)}
