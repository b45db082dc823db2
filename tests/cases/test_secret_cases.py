"""K6 of the cases: no secret and no control sequence in any file, stream or traceback, whole or in parts."""

import base64
import html
import io
import json
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from eva_stages.core.parts import write_part
from eva_stages.core.progress import Reporter
from eva_stages.core.redaction import PART, REMOVED, hide, redact, redacted
from eva_stages.core.rows import SCHEMAS
from eva_stages.core.store import Run, write_whole
from eva_stages.core.tables import pq
from eva_stages.core.terminal import Terminal, note, print_json

KEY = "Zq7/planted+key=0123\"'<&>wx\\yz"


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_PROVIDER_API_KEY", KEY)


def parts_of(secret: str) -> list[str]:
    return [secret[start : start + PART] for start in range(len(secret) - PART + 1)]


def holds_secret(text: str, secret: str = KEY) -> bool:
    return any(part in text for part in parts_of(secret))


FORMS = {
    "whole": KEY,
    "its first 20 characters": KEY[:20],
    "its last 12 characters": KEY[-PART:],
    "in a URL": quote(KEY, safe=""),
    "in a form": quote_plus(KEY),
    "in JSON": json.dumps({"header": KEY}),
    "in Python's representation": repr({"header": KEY}),
    "in HTML": html.escape(KEY),
    **{f"in base64 at {n}": base64.b64encode(b"u" * n + KEY.encode() + b"tail").decode() for n in range(4)},
}


@pytest.mark.parametrize("form", FORMS)
def test_no_form_of_a_key_and_no_long_part_of_it_is_left(form: str) -> None:
    text = f"before {FORMS[form]} after"
    left = hide(text)
    assert left.startswith("before ") and left.endswith(" after") and REMOVED in left
    assert not any(part in left for part in parts_of(FORMS[form]) if form.startswith("its") or ("base64" not in form and part in KEY))
    encoded = base64.b64encode(KEY.encode()).decode()
    assert not any(holds_secret(left, encoded[start:]) for start in range(4)) and not holds_secret(left)


NAMES = ("HF_TOKEN", "my_password", "DB_PASSWD", "AZURE_CLIENT_SECRET", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "BASIC_AUTH")


@pytest.mark.parametrize("name", [*NAMES, "GOOGLE_CREDENTIALS", "PGPASSWORD", "OPENAI_APIKEY", "X_AUTHORIZATION", "SSH_KEY_PASSPHRASE"])
def test_a_variables_name_says_that_its_value_is_a_secret(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "correcthorse-1")
    assert hide("it is correcthorse-1.") == f"it is {REMOVED}."


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SOME_KEY", "1"),
        ("USE_AUTH", "true"),
        ("TOKENIZERS_PARALLELISM", "false-positive"),
        ("GIT_AUTHOR_NAME", "Ada Lovelace"),
        ("SSH_AUTH_SOCK", "/tmp/agent.sock"),
        ("MAX_TOKENS", "100000000"),
        ("AUTH_TYPE", "quickstart"),
        ("PWD", "/a/working/folder"),
    ],
)
def test_what_is_no_secret_stays(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert redact(f"it is {value}.") == f"it is {value}."


def test_passwords_in_urls_json_and_token_files_are_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://ada:pass%40word-99@proxy.example:80")
    monkeypatch.setenv("GOOGLE_KEY_JSON", json.dumps({"type": "service_account", "private_key": "-----BEGIN\nMIIEvQIBADANBg\nkq7h\n"}))
    (tmp_path / "token").write_text("hf-token-of-a-file\n")
    (tmp_path / "stored_tokens").write_text("[work]\nhf_token = hf-token-of-work\n")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_TOKEN_PATH", raising=False)
    for secret in ("pass%40word-99", "pass@word-99", "MIIEvQIBADANBg", "hf-token-of-a-file", "hf-token-of-work"):
        assert hide(f"x {secret} y") == f"x {REMOVED} y"
    assert hide("service_account at proxy.example") == "service_account at proxy.example"


MESSAGES = {
    "no route to http://ada:secret@host/v1": f"no route to http://{REMOVED}@host/v1",
    "no route to http://ada:se@cret@host/v1": f"no route to http://{REMOVED}@host/v1",
    "Authorization: Bearer abc123def456": f"Authorization: Bearer {REMOVED}",
    "{'authorization': 'Basic dXNlcjpwYXNz'}": f"{{'authorization': 'Basic {REMOVED}'}}",
    "[(b'authorization', b'Bearer zzzzzz999999')]": f"[(b'authorization', b'Bearer {REMOVED}')]",
    '{"x-api-key": "qwertyuiop"}': f'{{"x-api-key": "{REMOVED}"}}',
    "GET /v1?key=abcdefgh&n=1": f"GET /v1?key={REMOVED}&n=1",
    "Incorrect API key provided: sk-proj-abcdefgh12345678": f"Incorrect API key provided: {REMOVED}",
    "bearer authentication failed": "bearer authentication failed",
    "basic information is missing.": "basic information is missing.",
    "write to ada@example.org, see https://example.org/a@b": "write to ada@example.org, see https://example.org/a@b",
}


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_lose_what_looks_like_a_credential(message: str) -> None:
    assert redact(message) == MESSAGES[message] == redact(redact(message))


def test_files_of_a_run_hold_no_secret(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.create()
    run.event("failed", cause=f"401 for {KEY}", nested={"headers": [KEY[3:]]})
    write_whole(run.root / "plan.json", json.dumps({"said": KEY}))
    row = {"prompt_id": "0", "rewards": [None], "failures": [f"refused: http://u:p@h/ {KEY[:14]}"], "_row": 0}
    write_part(run.work, SCHEMAS["rewards"], [row])
    answer = {"prompt_id": "0", "responses": [f"you sent {KEY}"], "finish_reasons": [f"failed for Bearer {KEY}"], "_row": 1}
    write_part(run.work, SCHEMAS["responses"], [answer])
    assert pq.read_table(run.work / "000000000.parquet")["failures"].to_pylist() == [[f"refused: http://{REMOVED}@h/ {REMOVED}"]]
    assert pq.read_table(run.work / "000000001.parquet")["responses"].to_pylist() == [[f"you sent {REMOVED}"]]
    for path in run.root.rglob("*.json*"):
        assert REMOVED in path.read_text() and not holds_secret(path.read_text())


ESCAPES = "\x1b]0;title\x07\x1b[2J\x9b31m\u202eevil\u2066 \x00\x7f"


def test_nothing_from_outside_acts_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    note(f"error: the server answered {ESCAPES} {KEY}")
    reporter = Reporter()
    reporter.console = Terminal(file=io.StringIO(), width=400, force_terminal=True)
    reporter.say(f"a: {ESCAPES} [red]b[/] :smile: [/nothing] {KEY}")
    print_json({"text": ESCAPES, "key": KEY})
    out, err = capsys.readouterr()
    said = reporter.console.file.getvalue()
    for text in (out, err, said):
        assert not set("\x1b\x07\x9b\x00\x7f\u202e\u2066") & set(text) and not holds_secret(text)
    assert "[red]b[/] :smile: [/nothing]" in said
    assert json.loads(out) == {"text": ESCAPES, "key": REMOVED}


def test_a_lone_surrogate_reaches_terminal_and_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path)
    run.event("failed", cause="half \ud800 a character")
    note("half \ud800 a character")
    assert capsys.readouterr().err.encode() == "half \ufffd a character\n".encode()
    assert run.events()[0]["cause"] == "half ? a character"


def test_redaction_keeps_what_is_no_text() -> None:
    assert redacted({"a": [1, None, 2.5, True], KEY: (KEY,)}) == {"a": [1, None, 2.5, True], REMOVED: [REMOVED]}
