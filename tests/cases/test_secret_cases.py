"""No secret and no control sequence in any file, stream or traceback, complete or in parts (CASES.md, K6)."""

import base64
import html
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, quote_plus

import pyarrow as pa
import pytest

from cli.main import report_unexpected
from cli.shared import existing_run
from eva_stages.checking.credential_checks import check_credentials
from eva_stages.core.durable import write_whole
from eva_stages.core.errors import ConfigError, StageError
from eva_stages.core.logs import clean_log
from eva_stages.core.packaged_files import packaged_recipes
from eva_stages.core.parts import write_part
from eva_stages.core.process import run_in_child
from eva_stages.core.progress import Reporter
from eva_stages.core.recipe_files import dump_recipe, load_recipe
from eva_stages.core.redaction import PART, REPLACEMENT, SHORTEST, STRIDE, hide, redact, redact_data
from eva_stages.core.resolved import Resolved
from eva_stages.core.rows import SCHEMAS
from eva_stages.core.run_folder import Run
from eva_stages.core.runner import Context, execute
from eva_stages.core.stage import FunctionStage, Use
from eva_stages.core.tables import pq
from eva_stages.core.terminal import Terminal, note, print_json
from eva_stages.models.litellm_generator import LiteLLMGenerator
from eva_stages.publishing.contents import Selection
from eva_stages.publishing.privacy import Privacy, hosts_of
from eva_stages.publishing.pushing import push_run
from tests.building import check
from tests.fault_server import chat_server

KEY = "Zq7/planted+key=0123\"'<&>wx\\yz"


@pytest.fixture(autouse=True)
def plant_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_no_form_and_no_long_part_of_a_key_remains(form: str) -> None:
    text = f"before {FORMS[form]} after"
    hidden_text = hide(text)
    assert hidden_text.startswith("before ") and hidden_text.endswith(" after") and REPLACEMENT in hidden_text
    assert not any(
        part in hidden_text for part in parts_of(FORMS[form]) if form.startswith("its") or ("base64" not in form and part in KEY)
    )
    base64_key = base64.b64encode(KEY.encode()).decode()
    assert not any(holds_secret(hidden_text, base64_key[start:]) for start in range(4)) and not holds_secret(hidden_text)


NAMES = ("HF_TOKEN", "my_password", "DB_PASSWD", "AZURE_CLIENT_SECRET", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "BASIC_AUTH")


@pytest.mark.parametrize("name", [*NAMES, "GOOGLE_CREDENTIALS", "PGPASSWORD", "OPENAI_APIKEY", "X_AUTHORIZATION", "SSH_KEY_PASSPHRASE"])
def test_the_name_of_a_variable_marks_its_value_as_a_secret(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "correcthorse-1")
    assert hide("it is correcthorse-1.") == f"it is {REPLACEMENT}."


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
        ("KEYWORDS", "machine learning, models"),
        ("KEYBOARD_LAYOUT", "us-international"),
        ("MONKEY_NAME", "George 7 Washington"),
        ("OAUTH_CLIENT_NAME", "My client name"),
    ],
)
def test_text_without_secrets_is_unchanged(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
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
        assert hide(f"x {secret} y") == f"x {REPLACEMENT} y"
    assert hide("service_account at proxy.example") == "service_account at proxy.example"


MESSAGES = {
    "no route to http://ada:secret@host/v1": f"no route to http://{REPLACEMENT}@host/v1",
    "no route to http://ada:se@cret@host/v1": f"no route to http://{REPLACEMENT}@host/v1",
    "Authorization: Bearer abc123def456": f"Authorization: Bearer {REPLACEMENT}",
    "{'authorization': 'Basic dXNlcjpwYXNz'}": f"{{'authorization': 'Basic {REPLACEMENT}'}}",
    "[(b'authorization', b'Bearer zzzzzz999999')]": f"[(b'authorization', b'Bearer {REPLACEMENT}')]",
    '{"x-api-key": "qwertyuiop"}': f'{{"x-api-key": "{REPLACEMENT}"}}',
    "GET /v1?key=abcdefgh&n=1": f"GET /v1?key={REPLACEMENT}&n=1",
    "Incorrect API key provided: sk-proj-abcdefgh12345678": f"Incorrect API key provided: {REPLACEMENT}",
    "Set-Cookie: session=abc123; path=/": f"Set-Cookie: {REPLACEMENT}; path=/",
    "sent Basic dXNlcjpwYXNzd29yZDE=": f"sent Basic {REPLACEMENT}",
    "token hf_AbCdEfGhIjKlMnOpQrSt": f"token {REPLACEMENT}",
    "bearer authentication failed": "bearer authentication failed",
    "Fortune cookie: chocolate, or api-key, please": "Fortune cookie: chocolate, or api-key, please",
    "explain basic Python3.10 syntax and basic COVID-19 advice": "explain basic Python3.10 syntax and basic COVID-19 advice",
    "models/hf_llama_3_converted, hf_hub_download_everything": "models/hf_llama_3_converted, hf_hub_download_everything",
    "basic information is missing.": "basic information is missing.",
    "write to ada@example.org, see https://example.org/a@b": "write to ada@example.org, see https://example.org/a@b",
}


@pytest.mark.parametrize("message", MESSAGES)
def test_text_that_looks_like_a_credential_is_removed_from_messages(message: str) -> None:
    assert redact(message) == MESSAGES[message] == redact(redact(message))


def test_a_secret_of_digits_is_not_removed_from_a_longer_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "66666666")
    assert json.loads(redact(json.dumps({"share": 2 / 3, "said": "it is 66666666."}))) == {"share": 2 / 3, "said": f"it is {REPLACEMENT}."}


@pytest.mark.parametrize("lead", range(STRIDE + 1))
@pytest.mark.parametrize("length", [SHORTEST, PART - 1, PART, PART + 1])
def test_a_part_of_a_secret_is_found_at_every_position(lead: int, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "q8Zr4Lk2Wm9Tx"[:length]
    monkeypatch.setenv("AN_API_KEY", secret)
    for tail in range(STRIDE):
        assert hide("." * lead + secret + "." * tail) == "." * lead + REPLACEMENT + "." * tail


def test_files_of_a_run_hold_no_secret(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.create()
    run.event("failed", cause=f"401 for {KEY}", nested={"headers": [KEY[3:]]})
    write_whole(run.root / "plan.json", json.dumps({"said": KEY}))
    row = {"prompt_id": "0", "rewards": [None], "failures": [f"refused: http://u:p@h/ {KEY[:14]}"], "_row": 0}
    write_part(run.work, SCHEMAS["rewards"], [row])
    answer = {"prompt_id": "0", "responses": [f"you sent {KEY}"], "finish_reasons": [f"failed for Bearer {KEY}"], "_row": 1}
    write_part(run.work, SCHEMAS["responses"], [answer])
    assert pq.read_table(run.work / "000000000.parquet")["failures"].to_pylist() == [[f"refused: http://{REPLACEMENT}@h/ {REPLACEMENT}"]]
    assert pq.read_table(run.work / "000000001.parquet")["responses"].to_pylist() == [[f"you sent {REPLACEMENT}"]]
    for path in run.root.rglob("*.json*"):
        assert REPLACEMENT in path.read_text() and not holds_secret(path.read_text())


ESCAPES = "\x1b]0;title\x07\x1b[2J\x9b31m\u202eevil\u2066 \x00\x7f"


def test_nothing_from_outside_acts_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    note(f"error: the server answered {ESCAPES} {KEY}")
    reporter = Reporter()
    reporter.console = Terminal(file=io.StringIO(), width=400, force_terminal=True)
    reporter.say(f"a: {ESCAPES} [red]b[/] :smile: [/nothing] {KEY}")
    print_json({"text": ESCAPES, "key": KEY})
    stdout, err = capsys.readouterr()
    message = reporter.console.file.getvalue()
    for text in (stdout, err, message):
        assert not set("\x1b\x07\x9b\x00\x7f\u202e\u2066") & set(text) and not holds_secret(text)
    assert "[red]b[/] :smile: [/nothing]" in message
    assert json.loads(stdout) == {"text": ESCAPES, "key": REPLACEMENT}


def test_a_lone_surrogate_reaches_terminal_and_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path)
    run.event("failed", cause="half \ud800 a character")
    note("half \ud800 a character")
    assert capsys.readouterr().err.encode() == "half \ufffd a character\n".encode()
    assert run.events()[0]["cause"] == "half ? a character"


def test_redaction_keeps_values_that_are_not_text() -> None:
    assert redact_data({"a": [1, None, 2.5, True], KEY: (KEY,)}) == {"a": [1, None, 2.5, True], REPLACEMENT: [REPLACEMENT]}


# --- servers that echo

LONG_KEY = "sk-long-" + "".join(f"{n:04d}" for n in range(200))


@pytest.mark.parametrize("variable", ["OPENAI_API_KEY", "MY_JUDGE"])
@pytest.mark.parametrize("fault", ["400", "401", "500"])
def test_a_server_that_echoes_the_key_shows_no_part_of_it(
    variable: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, LONG_KEY)
    settings = {} if variable == "OPENAI_API_KEY" else {"api_key_env": variable}
    with chat_server() as server:
        server.faults = [fault]
        server.reply = lambda body: f"you sent {LONG_KEY[20:40]}"
        llm = LiteLLMGenerator(model="openai/tiny", api_base=server.base, journal=str(tmp_path), attempts=1, concurrency=1, **settings)
        llm.load()
        message = ""
        for number in range(2):  # once in an error, once in a reply
            try:
                message += str(llm.generate([[{"role": "user", "content": f"hello {number}"}]], 1, [number]))
            except StageError as error:
                message += str(error)
        llm.unload()
    assert {request["key"] for request in server.requests} == {f"Bearer {LONG_KEY}"} and REPLACEMENT in message and "you sent" in message
    files = "".join(path.read_bytes().decode(errors="replace") for path in tmp_path.iterdir())
    assert "you sent" in files and not holds_secret(message + files, LONG_KEY)


# --- logs and tracebacks


def test_a_log_holds_no_secret_wherever_its_writer_splits_the_text(tmp_path: Path) -> None:
    with clean_log(tmp_path / "log") as output:
        for text in (f"first {KEY}\nsecond ", KEY[:15], KEY[15:], "\r", f"x{KEY}" * 12_000, "\nlast"):
            rest = text.encode()
            while rest:
                rest = rest[os.write(output.fileno(), rest) :]
    message = (tmp_path / "log").read_text()
    assert message.startswith(f"first {REPLACEMENT}\nsecond {REPLACEMENT}") and message.endswith("\nlast") and not holds_secret(message)


def print_and_raise(text: str) -> None:
    local = text  # a traceback that prints local variables would show it
    print("printed", local)
    raise RuntimeError(f"raised {local}")


def test_a_stages_output_and_traceback_hold_no_secret(tmp_path: Path) -> None:
    with pytest.raises(StageError) as failure:
        run_in_child(f"{__name__}:print_and_raise", {"text": f"Bearer {KEY}"}, tmp_path / "log", lambda: None)
    message = (tmp_path / "log").read_text()
    assert (
        f"printed Bearer {REPLACEMENT}" in message
        and f"RuntimeError: raised Bearer {REPLACEMENT}" in message
        and "print_and_raise" in message
    )
    assert "planted" not in message + str(failure.value) and len(message.splitlines()) < 20


def raise_one(context: Context, name: str) -> None:
    secret_local = os.environ["SOME_PROVIDER_API_KEY"]
    raise {kind.__name__: kind for kind in (RuntimeError, RecursionError, SystemExit, MemoryError)}[name](secret_local)


@pytest.mark.parametrize("error", [RuntimeError, RecursionError, SystemExit, MemoryError])
def test_an_unexpected_error_of_a_stage_is_one_line_and_a_plain_traceback_in_a_file(error: type[BaseException], tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.create()
    stage = FunctionStage("odd", 0, {}, function=Use(f"{__name__}:raise_one", {"name": error.__name__}))
    with pytest.raises(StageError) as failure:
        execute(run, [stage], Reporter())
    message = str(failure.value)
    assert message.startswith(f"stage 0-odd failed: {error.__name__}: {REPLACEMENT}") and "\n" not in message
    assert message.endswith(f"; the traceback is in {run.root / 'error.log'}")
    log = (run.root / "error.log").read_text()
    assert "raise_one" in log and "secret_local" in log and not holds_secret(log + message) and len(log.splitlines()) < 30
    assert run.events()[-1]["event"] == "failed"


def test_an_unexpected_error_of_a_command_is_one_line_with_the_log_and_the_resuming_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text("")
    monkeypatch.setattr("cli.shared._opened_folders", [])
    existing_run(str(tmp_path))
    monkeypatch.setattr("sys.argv", ["eva", "run", "quickstart", "--set", f"name={KEY}"])
    try:
        print_and_raise(KEY)
    except RuntimeError as error:
        report_unexpected(error)
    cause, resume = capsys.readouterr().err.splitlines()
    assert cause == f"error: RuntimeError: raised {REPLACEMENT}; the traceback is in {tmp_path / 'error.log'}"
    assert resume.startswith("resume with: eva run quickstart --set") and not holds_secret(resume)
    assert not holds_secret((tmp_path / "error.log").read_text())


HOOK = """
import sys
import {module}
assert sys.excepthook is sys.__excepthook__, sys.excepthook.__module__
"""


def test_no_uncaught_exception_shows_the_values_of_variables() -> None:
    code = "".join(
        HOOK.format(module=module)
        for module in ("eva_stages.models.rewards", "eva_stages.creator.evolving", "eva_stages.checking.recipe_checks")
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


# --- recipes


def evolver(**fields: object) -> str:
    return "creator.evolve.generator=" + json.dumps({"kind": "litellm", "model": "openai/x", **fields})


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        (evolver(api_base="http://user:passw0rd@host/v1"), r"creator.evolve.generator.api_base: is a URL with a user or a password"),
        (evolver(api_base="https://passw0rd@host"), r"generator.api_base: is a URL with a user or a password"),
        (evolver(stop=[KEY]), r"generator.stop.0: contains the value of SOME_PROVIDER_API_KEY"),
        (evolver(model=f"openai/{KEY[4:20]}"), r"generator.model: contains the value of SOME_PROVIDER_API_KEY, or a part of it"),
        (evolver(system_prompt="Authorization: Bearer passw0rd"), r"generator.system_prompt: contains what looks like a key"),
        ("name=sk-proj-abcdefghij0123456789", r"name: contains what looks like a key"),
    ],
)
def test_a_recipe_with_a_credential_is_refused_with_the_fix_and_without_showing_it(setting: str, says: str) -> None:
    recipe = load_recipe("quickstart", [setting])
    (fault,) = check_credentials(recipe, Resolved())
    assert re.search(rf"{says}.* environment variable", fault)
    assert not holds_secret(fault) and "passw0rd" not in fault
    with pytest.raises(ConfigError, match=says):
        check(recipe, keys=False)


def test_no_packaged_recipe_is_refused_for_a_credential() -> None:
    for recipe in packaged_recipes():
        assert not list(check_credentials(load_recipe(recipe.name), Resolved()))


def test_published_texts_keep_folders_that_every_machine_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.prefix", "/usr/local")
    assert Privacy(tmp_path).text("install it to /usr/local/bin") == "install it to /usr/local/bin"


def test_published_texts_name_no_server(tmp_path: Path) -> None:
    recipe = load_recipe("quickstart", [evolver(api_base="http://Judge.corp.internal:8000/v1")])
    data = recipe.model_dump(mode="json")
    assert hosts_of(data) == ("Judge.corp.internal",)
    privacy = Privacy(tmp_path, hosts=hosts_of(data))
    published_settings = privacy.settings(data)
    assert "api_base" not in published_settings["creator"]["evolve"]["generator"] and "corp.internal" not in json.dumps(published_settings)
    rows = [{"prompt_id": "0", "rewards": [None], "failures": ["no answer from http://judge.corp.internal:8000/v1"]}]
    table, changed_rows = privacy.table(pa.Table.from_pylist(rows, schema=SCHEMAS["rewards"]))
    assert changed_rows == 1 and table["failures"].to_pylist() == [["no answer from http://[server]:8000/v1"]]
    run, message = Run(tmp_path / "run"), list[str]()
    run.create()
    (run.root / "recipe.yaml").write_text(dump_recipe(recipe))
    with pytest.raises(ConfigError, match="no complete stage"):
        push_run(run, "ada", True, Selection(), True, message.append)
    assert message[0] == "api_base is not published, and Judge.corp.internal appears as [server] in it"
