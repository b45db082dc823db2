"""Removes secrets from every text before it reaches a disk, a terminal or the Hub.

Secrets are the values of environment variables with a secret-like name or named in `api_key_env`, the Hub token's file, and passwords in
the URLs of any variable. Servers and libraries echo them complete, truncated, quoted or encoded, so every part of `PART` characters of
every usual form is removed, before any text is truncated. From messages, anything that looks like a credential is removed as well: the
user of a URL, authorization headers, keys with a known prefix. From data (prompts, responses), only known secrets are removed. Passwords
of fewer than `SHORTEST` characters stay, because such words and numbers occur everywhere.
"""

import base64
import html
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, unquote

from eva_stages.core.harmless import map_leaves

REPLACEMENT = "[removed]"
VARIABLES = "EVA_SECRET_VARIABLES"
"""Environment variable with the names of further variables that hold secrets; child processes inherit it."""
PART, ANCHOR = 12, 6
"""Characters of the shortest part of a secret that is removed. Each such part contains a complete block of `ANCHOR` characters."""
STRIDE = PART - ANCHOR + 1
"""Every part in a text contains `ANCHOR` characters that begin at a multiple of this."""
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
    (re.compile(r"(?<=//)(?!\[removed\]@)[^/\s\"'<>\\]+(?=@)"), REPLACEMENT),
    (re.compile(rf"(?i)({_HEADERS}{_IS}(?:(?:bearer|basic|token)\s+)?+){_VALUE}{{6,}}"), rf"\1{REPLACEMENT}"),
    (re.compile(rf"(?i)\b(bearer\s+)(?=[^\s]*[\d_=]){_VALUE}{{8,}}"), rf"\1{REPLACEMENT}"),
    (re.compile(r"\b((?i:basic)\s+)(?=[A-Za-z0-9+/]*[\d=])(?=[^A-Z\s]*[A-Z])[A-Za-z0-9+/]{10,}={0,2}(?![\w.-])"), rf"\1{REPLACEMENT}"),
    (re.compile(rf"(?i)([?&]{_PARAMETERS}=)(?:(?!&){_VALUE}){{6,}}"), rf"\1{REPLACEMENT}"),
    (re.compile(r"\b(?:sk|rk|pk)-(?=[\w-]{0,99}[\dA-Z])[\w-]{14,}"), REPLACEMENT),
    (re.compile(rf"\b{_PREFIXES}(?=[\w-]{{0,99}}[\dA-Z])[\w-]{{14,}}"), REPLACEMENT),
    (re.compile(r"\bhf_(?=[a-z]{0,99}[\dA-Z])[A-Za-z0-9]{14,}"), REPLACEMENT),
    (re.compile(r"\b(?:(?:AKIA|ASIA)[0-9A-Z]{16}|AIza[\w-]{30,}|eyJ[\w-]{8,999}\.[\w-]{8,}\.[\w-]{8,})"), REPLACEMENT),
)
"""What looks like a credential: the user of a URL, headers, parameters of URLs, keys with a known prefix."""


@dataclass(frozen=True)
class Secrets:
    """The secrets: `wholes`, and every part of `PART` characters in `parts`."""

    wholes: tuple[str, ...]
    parts: frozenset[str]
    anchors: tuple[str, ...]
    """A text without any of these contains no secret."""
    grams: frozenset[str]
    """All sequences of `ANCHOR` characters in `parts`: one pass over a text finds them, for any number of secrets."""
    short: tuple[str, ...]
    """Secrets without parts: only the complete secret is removed."""

    def hide(self, text: str) -> str:
        """A text without the secrets and their parts."""
        if not self.wholes or (
            self.grams.isdisjoint(text[start : start + ANCHOR] for start in range(0, len(text) - ANCHOR + 1, STRIDE))
            and not any(whole in text for whole in self.short)
        ):
            return text
        spans = [(match.start(), match.end()) for whole in self.wholes for match in re.finditer(_pattern(whole), text)]
        spans += [(start, start + PART) for start in range(len(text) - PART + 1) if text[start : start + PART] in self.parts]
        pieces, position = [], 0
        for start, end in _join_spans(sorted(spans)):
            pieces += [text[position:start], REPLACEMENT]
            position = end
        return "".join([*pieces, text[position:]])

    def redact(self, text: str) -> str:
        """A message without the secrets and without anything that looks like a credential."""
        text = self.hide(text)
        for pattern, replacement in _CREDENTIALS:
            text = pattern.sub(replacement, text)
        return text


def _pattern(whole: str) -> str:
    """Digits are not removed from a longer number, because a float in JSON would become invalid."""
    return rf"(?<!\d)(?<!\d\.){whole}(?!\.?\d)" if whole.isdecimal() else re.escape(whole)


def _join_spans(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Merge overlapping and adjacent spans."""
    start = end = -1
    for first, last in spans:
        if first > end:
            if end >= 0:
                yield start, end
            start = first
        end = max(end, last)
    if end >= 0:
        yield start, end


def secrets(more_values: Iterable[str] = ()) -> Secrets:
    """The secrets of the present environment, and further values."""
    return _prepare(frozenset({value for _, value in known_secrets()} | {value for value in more_values if len(value) >= SHORTEST}))


def single_secret(value: str) -> Secrets:
    """A single secret."""
    return _prepare(frozenset({value}))


def known_secrets() -> Iterator[tuple[str, str]]:
    """Every secret with its source: the name of a variable or file."""
    variable_names = secret_variables()
    for name, value in os.environ.items():
        if name == VARIABLES:  # names of variables are no secrets
            continue
        if name in variable_names or (_SECRET_NAME.search(name.upper()) and not _is_harmless(name.upper(), value)):
            yield from ((name, secret) for secret in _secrets_in(value))
        elif "@" in value and "//" in value:
            yield from ((name, secret) for secret in _in_urls(value))
    for path in _token_files():
        yield from ((str(path), word) for word in _words(path) if len(word) >= SHORTEST)


def add_secret_variable(name: str) -> None:
    """Treat the value of an environment variable as a secret, here and in child processes."""
    if name not in (names := secret_variables()):
        os.environ[VARIABLES] = ",".join([*names, name])


def secret_variables() -> list[str]:
    """The names of the added variables."""
    return [name for name in os.environ.get(VARIABLES, "").split(",") if name]


def hide(text: str) -> str:
    """Data without known secrets."""
    return secrets().hide(text)


def redact(text: str) -> str:
    """A message without known secrets and without anything that looks like a credential."""
    return secrets().redact(text)


def redact_data(value: Any) -> Any:
    """JSON-like data with every text, including keys, redacted as a message."""
    return _map_texts(value, secrets().redact)


def hide_in_data(value: Any) -> Any:
    """JSON-like data with known secrets removed from every text, including keys."""
    return _map_texts(value, secrets().hide)


def redact_rows(rows: list[dict[str, Any]], messages: Iterable[str]) -> list[dict[str, Any]]:
    """Rows of data without known secrets; the columns `messages` contain error messages and are redacted as such."""
    known_values, columns = secrets(), frozenset(messages)
    return [
        {name: _map_texts(value, known_values.redact if name in columns else known_values.hide) for name, value in row.items()}
        for row in rows
    ]


def _map_texts(data: Any, clean: Callable[[str], str]) -> Any:
    """JSON-like data with `clean` applied to every text, including keys."""
    return map_leaves(data, lambda value: clean(value) if isinstance(value, str) else value)


def _is_harmless(name: str, value: str) -> bool:
    """Whether the value of a variable with a secret-like name is no secret: a path, a number, a plain word."""
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
    """The secrets in the value of a variable: the value, each of its lines, or the entries of its JSON."""
    data = _parse_json(value)
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


def _parse_json(value: str) -> Any:
    """A value as a JSON object or list; None for plain text."""
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
    """The files in which `huggingface_hub` stores tokens."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = Path(os.environ.get("HF_HOME") or f"{cache}/huggingface").expanduser()
    token_path = os.environ.get("HF_TOKEN_PATH")
    return [Path(token_path).expanduser() if token_path else home / "token", home / "stored_tokens"]


def _words(path: Path) -> list[str]:
    """The tokens in a file of tokens: a token, or lines of `name = token`."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [line.rpartition("=")[2].strip() for line in lines if not line.startswith("[")]


@lru_cache(maxsize=8)
def _prepare(values: frozenset[str]) -> Secrets:
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
    """A secret in all its forms: in texts, URLs, JSON, HTML, Python's representation and, at any offset, base64."""
    escaped_forms = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1], html.escape(value)}
    content = value.encode(errors="surrogatepass")
    encoded_forms = set()
    for offset in range(3):  # characters at either end also depend on their neighbours
        text = base64.b64encode(b"\0" * offset + content).decode().rstrip("=")
        inner = text[(0, 2, 3)[offset] : len(text) - ((offset + len(content)) % 3 > 0)]
        encoded_forms |= {inner, inner.replace("+", "-").replace("/", "_")}
    return {
        value,
        quote(value, safe=""),
        quote(value),
        quote_plus(value),
        *escaped_forms,
        *(text for text in encoded_forms if len(text) >= SHORTEST),
    }
