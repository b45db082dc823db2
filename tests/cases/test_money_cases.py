"""A server that misbehaves costs no more than the cap, hangs nothing and shows no secret (CASES.md, K5)."""

import asyncio
import io
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cli.main import exit_code
from eva_stages.core.call_file import CALLS, run_guarded, spending_of
from eva_stages.core.calls import Journal
from eva_stages.core.config.models_config import LiteLLMModel
from eva_stages.core.errors import StageError
from eva_stages.core.job_context import job
from eva_stages.core.notices import NoticeReader
from eva_stages.core.progress import Reporter, facts
from eva_stages.core.rows import SCHEMAS, prompt_row
from eva_stages.core.run_folder import Run
from eva_stages.core.runner import execute
from eva_stages.core.stage import WORK, Input, Outside, RowStage, Use
from eva_stages.core.tables import write_rows
from eva_stages.core.terminal import Terminal
from eva_stages.models.litellm_generator import LiteLLMGenerator
from eva_stages.models.provider_errors import retry_after
from eva_stages.models.spending import count_tokens
from tests.fault_server import ChatServer, Fault, chat_server

KEY = "planted-key-5f2c91aa07b34d"
SECRET = KEY.encode()
PRICE = {"input": 100.0, "output": 200.0}
MESSAGES = [{"role": "user", "content": "prompt 0"}]
NEW_TOKENS = 20
WORST = (count_tokens("openai/tiny", messages=MESSAGES) * 100 + NEW_TOKENS * 200) * 1e-6
"""The worst-case cost of one call in US dollars, from the tokens of its prompt and the longest response."""
PLAUSIBLE = (10 * 100 + 5 * 200) * 1e-6
"""The cost of the server's usual reply."""


@pytest.fixture(scope="module")
def running() -> Iterator[ChatServer]:
    with chat_server() as server:
        yield server


@pytest.fixture
def server(running: ChatServer, monkeypatch: pytest.MonkeyPatch) -> ChatServer:
    monkeypatch.setenv("EVA_TEST_KEY", KEY)
    running.faults, running.requests, running.completed_requests = [], [], 0
    return running


def generator(server: ChatServer, folder: Path | None = None, **settings: Any) -> LiteLLMGenerator:
    settings_of_llm = {"timeout": 20.0, "price": PRICE, "max_new_tokens": NEW_TOKENS, "concurrency": 1, "attempts": 1, **settings}
    journal = {"journal": str(folder), "attempt": str(folder)} if folder else {}
    llm = LiteLLMGenerator(model="openai/tiny", api_base=server.base, api_key_env="EVA_TEST_KEY", **journal, **settings_of_llm)
    llm.load()
    return llm


def ask(llm: LiteLLMGenerator, count: int = 1, n: int = 1) -> list[Any]:
    prompts = [[{"role": "user", "content": f"prompt {index}"}] for index in range(count)]
    outputs = llm.generate(prompts, n, list(range(count)))
    llm.unload()
    return outputs


def rows(folder: Path) -> list[tuple[float, int]]:
    with sqlite3.connect(folder / CALLS) as connection:
        return connection.execute("SELECT usd, estimated FROM calls").fetchall()


def spent_usd(output: dict[str, Any]) -> tuple[float, float]:
    statistics = output["statistics"]
    return sum(statistics.get("cost_usd", [0.0])), sum(statistics.get("estimated_calls", [0]))


USAGES: dict[str, Any] = {
    "null": None,
    "zeros": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    "negative": {"prompt_tokens": -30_000_000, "completion_tokens": -5, "total_tokens": 0},
    "absurd": {"prompt_tokens": 10**15, "completion_tokens": 10**15, "total_tokens": 10**15},
    "far more than was allowed": {"prompt_tokens": 10, "completion_tokens": 2 * NEW_TOKENS + 600, "total_tokens": 650},
    "texts": {"prompt_tokens": "many", "completion_tokens": "more", "total_tokens": "most"},
    "infinite": {"prompt_tokens": float("inf"), "completion_tokens": float("nan"), "total_tokens": 1},
    "a word": "unknown",
    "half of it": {"prompt_tokens": 10},
}


@pytest.mark.parametrize("usage", [*USAGES, "none"])
def test_unusable_usage_counts_as_the_worst_case_and_is_reported_as_estimated(server: ChatServer, tmp_path: Path, usage: str) -> None:
    server.faults = [Fault(missing_fields=("usage",)) if usage == "none" else Fault(fields={"usage": USAGES[usage]})]
    (output,) = ask(generator(server, tmp_path))
    assert str(output["generations"][0]).startswith("prompt 0") and len(server.requests) == 1
    assert spent_usd(output) == (pytest.approx(WORST), 1) and rows(tmp_path) == [(pytest.approx(WORST), 1)]
    assert output["statistics"]["output_tokens"][0] > 0 and output["statistics"]["input_tokens"][0] > 0


def test_plausible_usage_is_used_even_if_it_exceeds_our_count(server: ChatServer, tmp_path: Path) -> None:
    usage = {"prompt_tokens": 15, "completion_tokens": NEW_TOKENS + 1, "total_tokens": 36}
    server.faults = [Fault(fields={"usage": usage})]
    (output,) = ask(generator(server, tmp_path, max_cost_usd=0.01))
    assert spent_usd(output) == (pytest.approx((15 * 100 + (NEW_TOKENS + 1) * 200) * 1e-6), 0)
    server.faults = [Fault(fields={"usage": usage})]
    (tmp_path / "capped").mkdir()
    (output,) = ask(generator(server, tmp_path / "capped", max_cost_usd=WORST))
    assert rows(tmp_path / "capped") == [(pytest.approx(WORST), 0)], "a cap holds in the journal whatever is reported"


BILLED_FAULTS = {
    "hang": {"timeout": 0.4},
    "cut": {},
    "malformed": {},
    "html": {},
    "502": {},
    "504": {},
    "drip": {"timeout": 0.4},
    "reset": {},
}
SPECIAL = {
    "html": Fault(headers={"Content-Type": "text/html"}, body=b"<html><body>welcome</body></html>"),
    "drip": Fault(drip=True),
    "reset": Fault(reset_after_bytes=20),
}


@pytest.mark.parametrize("fault", BILLED_FAULTS)
def test_a_call_that_may_have_been_billed_counts_and_ends_before_its_deadline(server: ChatServer, tmp_path: Path, fault: str) -> None:
    server.faults = [SPECIAL.get(fault, fault)]
    (output,) = ask(generator(server, tmp_path, **BILLED_FAULTS[fault]))
    assert output["generations"] == [None] and output["finish_reasons"][0].startswith("gave up after 1 tries: ")
    assert spent_usd(output) == (pytest.approx(WORST), 1) == (sum(usd for usd, _ in rows(tmp_path)), 1)
    assert len(server.requests) == 1, "LiteLLM sends nothing again by itself"


@pytest.mark.parametrize("fault", ["400", "429", "500", "503", "redirect", "nobody"])
def test_a_refused_call_costs_nothing(server: ChatServer, tmp_path: Path, fault: str) -> None:
    server.faults = [Fault(307, {"Location": "http://127.0.0.1:9/v2"}) if fault == "redirect" else fault]
    llm = generator(server, tmp_path, max_wait=0)
    llm.api_base = "http://127.0.0.1:9/v1" if fault == "nobody" else server.base
    (output,) = ask(llm)
    assert output["generations"] == [None] and spent_usd(output) == (0, 0) and rows(tmp_path) == []
    if fault == "redirect":
        assert "redirect to http://127.0.0.1:9/v2; give the final address as api_base" in output["finish_reasons"][0]
    if fault == "nobody":
        assert "no connection" in output["finish_reasons"][0]


def test_a_prompt_that_a_provider_forbids_is_null_and_other_prompts_get_responses(server: ChatServer, tmp_path: Path) -> None:
    server.faults = ["ok", Fault(403, body=b'{"error": {"message": "your input was flagged"}}')]
    first_output, forbidden_output, last_output = ask(generator(server, tmp_path, attempts=3), 3)
    assert first_output["generations"][0] and last_output["generations"][0] and len(server.requests) == 3
    assert (
        forbidden_output["generations"] == [None]
        and "your input was flagged" in forbidden_output["finish_reasons"][0]
        and spent_usd(forbidden_output) == (0, 0)
    )
    server.faults = [Fault(403, body=b'{"error": {"message": "your key is not allowed"}}')] * 3
    (tmp_path / "other").mkdir()
    with pytest.raises(StageError, match=r"rejected the request \(403\); check the model's name and EVA_TEST_KEY"):
        ask(generator(server, tmp_path / "other"), 3)


@pytest.mark.parametrize("reason", ["length", "content_filter", "stop"])
def test_a_reply_without_text_is_null_with_its_reason_and_paid_once(server: ChatServer, tmp_path: Path, reason: str) -> None:
    server.faults = [Fault(choice={"finish_reason": reason}, message={"content": None})]
    for _ in range(2):  # the second reply comes from the journal
        (output,) = ask(generator(server, tmp_path, attempts=6))
        assert output["generations"] == [None] and reason in output["finish_reasons"][0]
        assert spent_usd(output) == (pytest.approx(PLAUSIBLE), 0) and len(server.requests) == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0), ("7.5", 7.5), (" 0 ", 0.0), ("999999999999999999999999999", 300.0), ("infinity", None), ("inf", None), ("nan", None),
        ("-5", None), ("soon", None), ("", None), (None, None), ("1e9", None), ("\u0663", None),
        ("Thu, 01 Jan 1970 00:02:00 GMT", 20.0), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0), ("Fri, 31 Dec 9999 23:59:59 GMT", 300.0),
        ("Fri, 99 Dec 99999 23:59:59 GMT", None), ("Thu, 01 Jan 1970 00:02:00", 20.0),
    ],
)  # fmt: skip
def test_retry_after_is_read_by_the_rules_of_http_and_bounded(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, 100.0, 300.0) == seconds


def test_a_long_wait_is_reported_and_bounded_by_the_recipe(server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eva_stages.models.pacing.REPORTED_WAIT", 0.0)
    server.faults = [Fault(429, {"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}), Fault(429, {"Retry-After": "whenever"})]
    (output,) = ask(generator(server, tmp_path, attempts=3, max_wait=0.2))
    assert str(output["generations"][0]).startswith("prompt 0") and len(server.requests) == 3
    (text,) = NoticeReader(tmp_path).new_texts()
    assert (
        text.startswith("waiting until ") and "openai/tiny responded with status 429" in text and "at most runtime.max_wait, 0.2 s" in text
    )


def test_a_server_that_never_replies_ends_the_stage_and_is_named(server: ChatServer, tmp_path: Path) -> None:
    server.faults = ["500"] * 40
    with pytest.raises(StageError, match=r"no response from openai/tiny for \d+ s; the last error was: .*500"):
        ask(generator(server, tmp_path, attempts=9, timeout=0.3, max_wait=0), 20)


SURROGATE = (
    b'{"id": "x", "object": "chat.completion", "created": 1, "model": "tiny", "usage": {"prompt_tokens": 10, "completion_tokens": 5, \
"total_tokens": 15}, "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "half \\ud83d here"}}]}'
)


@pytest.mark.parametrize(("body", "text"), [(SURROGATE, "half \ufffd here"), (SURROGATE.replace(rb"\ud83d", b"\xff"), "half \ufffd here")])
def test_characters_that_no_file_can_hold_are_replaced_on_arrival(server: ChatServer, tmp_path: Path, body: bytes, text: str) -> None:
    for _ in range(2):
        server.faults = [Fault(body=body)]
        (output,) = ask(generator(server, tmp_path))
        assert output["generations"] == [text] and spent_usd(output) == (pytest.approx(PLAUSIBLE), 0)
    assert len(server.requests) == 1


ODD = {
    "a huge body": Fault(message={"content": "x" * (3 << 20)}),
    "choices that are no list": Fault(fields={"choices": {"0": 1}}),
    "a list": Fault(body=b"[1, 2]"),
    "nothing": Fault(body=b""),
    "nested": Fault(body=b'{"choices": ' + b"[" * 100_000),
    "a long number": Fault(body=b'{"choices": [1], "usage": ' + b"9" * 5000 + b"}"),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_unreadable_reply_is_a_failure_with_its_reason(server: ChatServer, tmp_path: Path, kind: str) -> None:
    server.faults = [ODD[kind]] * 2
    (output,) = ask(generator(server, tmp_path, attempts=2))
    assert output["generations"] == [None] and "gave up after 2 tries: " in output["finish_reasons"][0] and len(server.requests) == 2
    assert "longer than" in output["finish_reasons"][0] or kind != "a huge body"


@pytest.mark.parametrize("message", [{"content": 5}, {"content": {"a": 1}}, {"content": [{"type": "text", "text": "in parts"}]}])
def test_content_of_another_type_is_a_text_or_null_and_never_paid_twice(server: ChatServer, tmp_path: Path, message: Any) -> None:
    server.faults = [Fault(message=message)]
    (output,) = ask(generator(server, tmp_path, attempts=3))
    assert output["generations"] == [("in parts" if isinstance(message["content"], list) else None)] and len(server.requests) == 1


def test_a_call_is_not_paid_twice_after_our_own_error_in_reading(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("eva_stages.models.litellm_client.read_choices", lambda *_: 1 / 0)
        with pytest.raises(StageError, match=r"cannot be read .ZeroDivisionError.*saved in the journal"):
            ask(generator(server, tmp_path, attempts=6))
    (output,) = ask(generator(server, tmp_path))
    assert str(output["generations"][0]).startswith("prompt 0") and len(server.requests) == 1


def test_a_call_killed_before_its_reply_counts_at_the_next_start(server: ChatServer, tmp_path: Path) -> None:
    code = (
        "import asyncio, os, signal, sys; from pathlib import Path; from eva_stages.core.calls import Journal\n"
        "async def main():\n"
        "    journal = Journal(Path(sys.argv[1]), stage='1-evolve')\n"
        "    assert (await journal.reserve(0.07, 0.1)).key\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.run([sys.executable, "-c", code, str(tmp_path / CALLS)], env=environment, check=False)
    assert process.returncode == -9 and spending_of(tmp_path / CALLS, "1-evolve") == {
        "cost_usd": 0.07,
        "estimated_calls": 1,
        "estimated_usd": 0.07,
    }

    async def go_on() -> tuple[Any, Any, float]:
        journal = Journal(tmp_path / CALLS, stage="1-evolve")
        refusal, reservation = await asyncio.gather(journal.reserve(0.04, 0.1), journal.reserve(0.03, 0.1))  # in one transaction
        await journal.settle(reservation, "key", {"choices": []}, 0.01)
        return refusal, reservation, journal.spent_usd()

    refusal, reservation, total = asyncio.run(go_on())
    assert refusal.key is None and not refusal.waiting and reservation.key and total == pytest.approx(0.08)
    assert refusal.total_usd == 0.07, "a reservation that was granted meanwhile is not spent"


def test_generators_that_share_a_journal_stay_below_the_cap_together(server: ChatServer, tmp_path: Path) -> None:
    async def use_both_journals() -> float:
        journals = [Journal(tmp_path / CALLS, stage=name) for name in ("0-judge", "1-judge")]
        reservations = [await journals[index % 2].reserve(0.03, 0.1) for index in range(8)]
        open_reservations = [(index % 2, reservation) for index, reservation in enumerate(reservations) if reservation.key]
        assert len(open_reservations) == 3 and all(reservation.waiting for reservation in reservations if not reservation.key)
        await asyncio.gather(
            *(journals[index].settle(reservation, "the same call", {"choices": []}, 0.02) for index, reservation in open_reservations)
        )
        return journals[0].spent_usd()

    assert asyncio.run(use_both_journals()) == pytest.approx(0.06), "equal calls made at once are both paid for"
    assert [spending_of(tmp_path / CALLS, name)["cost_usd"] for name in ("0-judge", "1-judge")] == [
        pytest.approx(0.04),
        pytest.approx(0.02),
    ]


def test_a_shared_cache_separates_sent_calls_from_reused_ones(server: ChatServer, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    cache = {"cache": str(tmp_path / "cache.sqlite"), "max_cost_usd": 0.1}
    (first,) = ask(generator(server, tmp_path / "one", **cache))
    (second,) = ask(generator(server, tmp_path / "two", **cache))
    assert first["generations"] == second["generations"] and len(server.requests) == 1
    assert spent_usd(first) == (pytest.approx(PLAUSIBLE), 0) and spent_usd(second) == (0, 0)
    assert (second["statistics"]["reused_calls"], second["statistics"]["reused_usd"]) == ([1], [pytest.approx(PLAUSIBLE)])
    assert (
        spending_of(tmp_path / "one" / CALLS, "one")["cost_usd"] == pytest.approx(PLAUSIBLE)
        and spending_of(tmp_path / "two" / CALLS, "two") == {}
    )


def test_money_has_cents() -> None:
    text = facts({"judgments": 4, "cost_usd": 0.684, "reused_usd": 1200.0, "estimated_calls": 2})
    assert text == "judgments 4, cost USD 0.68, reused USD 1,200.00, estimated calls 2" and facts({"cost_usd": 0.0004}) == "cost USD 0.0004"


def test_settings_that_a_model_does_not_accept_are_reported_once_and_recorded(server: ChatServer, tmp_path: Path) -> None:
    llm = generator(server, tmp_path, temperature=0.5)
    llm.model = "openai/o1"  # accepts only temperature 1, and no top_p
    ask(llm, 2)
    reader = NoticeReader(tmp_path)
    assert reader.new_texts() == ["openai/o1 does not support temperature, top_p; calls are sent without"] == reader.lasting_texts()


def test_settings_that_a_server_refuses_are_left_out_and_reported(server: ChatServer, tmp_path: Path) -> None:
    detail = {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}
    server.faults = [Fault(422, body=json.dumps({"error": {"message": detail}}).encode())]
    (output,) = ask(generator(server, tmp_path))
    assert ["seed" in request for request in server.requests] == [True, False] and spent_usd(output) == (pytest.approx(PLAUSIBLE), 0)
    assert NoticeReader(tmp_path).new_texts() == ["openai/tiny rejects seed; calls are sent without"]
    server.faults = [Fault(422, body=b'{"error": {"message": "no"}}')] * 2
    (tmp_path / "other").mkdir()
    (output,) = ask(generator(server, tmp_path / "other"))
    assert output["finish_reasons"][0].startswith("refused: ") and spent_usd(output) == (0, 0)


def test_a_stage_reports_settings_that_its_model_does_not_accept_and_the_cost_in_the_journal(server: ChatServer, tmp_path: Path) -> None:
    rows = [prompt_row([{"role": "user", "content": f"prompt {n}"}], "test") for n in range(4)]
    write_rows([pa.Table.from_pylist(rows, schema=SCHEMAS["prompts"])], SCHEMAS["prompts"], tmp_path / "prompts")
    settings = {"model": "openai/o1", "api_base": server.base, "temperature": 0.5, "max_new_tokens": NEW_TOKENS}
    runtime = {"price": PRICE, "api_key_env": "EVA_TEST_KEY", "attempts": 2, "journal": Input(WORK), "attempt": Input(WORK)}
    step = Use("eva_stages.core.responding:Respond", {"llm": Use(LiteLLMModel.target, settings, runtime), "seed": 1})
    source = Outside("prompts", tmp_path / "prompts", "0")
    stage = RowStage("respond", 0, {"prompts": source}, sources=("prompts",), steps=(step,), schema="responses")
    server.faults = [Fault(missing_fields=("usage",)), "malformed"]
    run, reporter = Run(tmp_path / "run"), Reporter()
    reporter.console = Terminal(file=io.StringIO(), width=400)
    run.create()
    with run.lock(), job({"EVA_TEST_KEY": KEY}):
        execute(run, [stage], reporter)
    manifest, message = run.manifest(stage), reporter.console.file.getvalue()
    notice = "openai/o1 does not support temperature, top_p; calls are sent without"
    assert manifest["notices"] == [notice] and message.count(f"0-respond: {notice}") == 1
    assert len(server.requests) == 5 and manifest["counts"]["estimated_calls"] == 2, "one without usage, one that cannot be read"
    assert (
        manifest["counts"]["cost_usd"] == pytest.approx(3 * PLAUSIBLE + 2 * WORST)
        and f"cost USD {3 * PLAUSIBLE + 2 * WORST:.2f}" in message
    )


def test_an_error_while_loading_is_not_hidden_by_unloading(server: ChatServer) -> None:
    llm = LiteLLMGenerator(model="openai/tiny", api_base=server.base, api_key_env="EVA_TEST_KEY", max_cost_usd=1.0)
    with pytest.raises(StageError, match=r"runtime\.price"):
        llm.load()
    llm.unload()


def _damage_file(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + b"garbage" * 500)


def _text(path: Path) -> None:
    path.write_text("this is no database, and it is longer than a header of one would be, so that nobody takes it for an empty one\n" * 9)


def _full(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE calls (key TEXT PRIMARY KEY, answer TEXT NOT NULL, usd REAL NOT NULL)")
        connection.execute("CREATE TRIGGER full BEFORE INSERT ON calls BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END")


@pytest.mark.parametrize("break_file", [_damage_file, _text, _full])
@pytest.mark.parametrize("is_shared", [False, True])
def test_a_journal_that_cannot_be_written_ends_the_stage_with_its_name(
    server: ChatServer, tmp_path: Path, break_file: Callable[[Path], None], is_shared: bool
) -> None:
    path = tmp_path / ("cache.sqlite" if is_shared else CALLS)
    break_file(path)
    with pytest.raises(StageError, match=f"{path.name} cannot be used: .*; (restore it|check that)"):
        ask(generator(server, tmp_path, cache=str(tmp_path / "cache.sqlite")), 4)


def test_a_full_disk_and_a_locked_journal_are_named_with_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(sqlite3.connect(tmp_path / CALLS)) as connection:
        connection.execute("CREATE TABLE filling (text TEXT)")
        connection.execute("PRAGMA max_page_count = 3")
        with pytest.raises(StageError, match=r"calls.sqlite cannot be used: database or disk is full .*; free some space"):
            run_guarded(tmp_path / CALLS, lambda: connection.execute("INSERT INTO filling VALUES (?)", ("x" * 100_000,)))
        connection.rollback()
        monkeypatch.setattr("eva_stages.core.call_file.BUSY_SECONDS", 0.1)
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StageError, match=r"calls.sqlite cannot be used: database is locked .*; another process has locked it"):
            Journal(tmp_path / CALLS)


ALL_FAULTS: list[str | Fault] = [
    *(Fault(fields={"usage": usage}) for usage in USAGES.values()), Fault(missing_fields=("usage",)),
    *SPECIAL.values(), *ODD.values(), *(Fault(fields={"extra": json.loads("[" * n + "]" * n)}) for n in (300, 900)),
    "cut", "malformed", "no_choices", "500", "502", "400",
    Fault(429, {"Retry-After": "infinity"}), Fault(429, {"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}), Fault(302, {"Location": "/v1"}),
    Fault(choice={"finish_reason": "length"}, message={"content": None}), Fault(body=SURROGATE),
    *(Fault(status, {"X-Echo": KEY}, body=b'{"error": {"message": "%b, %b"}}' % (SECRET, SECRET[3:17])) for status in (400, 500)),
    Fault(message={"content": f"your key is {KEY}, or {KEY[:13]}..."}),
]  # fmt: skip


def test_all_faults_together_keep_the_cap_hang_nothing_and_show_no_key(
    server: ChatServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cap, ends = 0.10, list[str]()
    for _ in range(2):  # and a rerun with the journal
        server.faults = list(ALL_FAULTS)
        try:
            outputs = ask(generator(server, tmp_path, concurrency=4, attempts=2, timeout=1.0, max_wait=0.1, max_cost_usd=cap), 60)
            ends += [str(outputs)]
        except StageError as error:
            ends += [str(error)]
            assert "spending cap reached" in str(error)
        assert sum(usd for usd, _ in rows(tmp_path)) <= cap
    assert sum(usd for usd, _ in rows(tmp_path)) > cap - 2 * WORST and any(is_estimated for _, is_estimated in rows(tmp_path))
    content = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()) + "".join([*ends, *capfd.readouterr()]).encode()
    assert not any(KEY[start : start + 12].encode() in content for start in range(len(KEY) - 11))


# --- before any money is spent


def evolver(**changes: Any) -> str:
    return f"creator.evolve.generator={json.dumps({'kind': 'litellm', 'model': 'openai/tiny', **changes})}"


def run_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    """The exit code of a command, and the lines that it prints on standard error, without the one that says what to do next."""
    monkeypatch.setattr(sys, "argv", ["eva", *arguments])
    code = exit_code()
    return code, [line for line in capsys.readouterr().err.splitlines() if not line.startswith("next: ")]


FAULTS = {
    "a cap without a price": (
        evolver(api_base="http://x/v1", runtime={"max_cost_usd": 1}),
        "creator.evolve.generator.runtime.price: max",
    ),
    "no provider": (evolver(model="evolver-7b"), "creator.evolve.generator.model: LiteLLM knows no provider of evolver-7b"),
    "no address": (evolver(api_base="localhost:8000"), "creator.evolve.generator.api_base: 'localhost:8000' is not the address"),
    "too many tokens": (evolver(model="gpt-4", max_new_tokens=9000), "creator.evolve.generator.max_new_tokens: is 9000, and gpt-4 answers"),
    "a stage that is not": ("runtime.engine={kind: ray, steps: {respnod: {}}}", "runtime.engine.steps: unknown row stages: respnod"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_validate_and_plan_report_the_same_errors_and_exit_alike(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    change, fault = FAULTS[kind]
    ends = [run_command(monkeypatch, capsys, command, "quickstart", "--set", change) for command in ("validate", "plan")]
    assert ends[0] == ends[1] and ends[0][0] == 2 and len(ends[0][1]) == 1 and ends[0][1][0].startswith(f"error: {fault}")


def test_a_plan_works_without_keys_and_reports_the_missing_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    needs = "creator.evolve.generator.model: openai/tiny needs OPENAI_API_KEY"
    code, lines = run_command(monkeypatch, capsys, "validate", "quickstart", "--set", evolver())
    assert code == 2 and lines[0].startswith(f"error: {needs}")
    code, lines = run_command(monkeypatch, capsys, "plan", "quickstart", "--set", evolver(), "--run-dir", str(tmp_path))
    assert code == 0 and lines[0].startswith(f"note: {needs}")


ONLINE: dict[str, tuple[str | Fault, str | None]] = {
    "answers": ("ok", None),
    "answers with nothing": (Fault(choice={"finish_reason": "length"}, message={"content": None}), None),
    "the key is refused": ("401", "rejected the request (401); check the model's name and EVA_TEST_KEY"),
    "unknown model": (Fault(404, body=b'{"error": {"message": "no such model"}}'), "rejected the request (404); check the model's name"),
    "is broken": ("500", "does not respond ("),
    "hangs": ("hang", "does not respond (TimeoutError: no complete response within 0.5 s"),
}


@pytest.mark.parametrize("kind", ONLINE)
def test_validate_online_calls_every_server_once_and_reports_the_errors(
    server: ChatServer, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fault, says = ONLINE[kind]
    runtime = {"api_key_env": "EVA_TEST_KEY", "timeout": 0.5, "price": PRICE}
    changes = ["--set", evolver(api_base=server.base, runtime=runtime)]
    critic = {"kind": "litellm", "model": "openai/tiny", "api_base": server.base, "runtime": runtime}
    changes += ["--set", f"creator.evolve.feedback={json.dumps({'critic': critic})}"]
    assert run_command(monkeypatch, capsys, "validate", "quickstart", *changes) == (0, []) and server.requests == []
    for command in (("validate",), ("plan", "--run-dir", str(tmp_path))):
        server.faults, server.requests = [fault], []
        code, lines = run_command(monkeypatch, capsys, command[0], "quickstart", *changes, "--online", *command[1:])
        (request,) = server.requests
        assert request["max_tokens"] == 1 and request["key"] == f"Bearer {KEY}"
        if says is None:
            assert (code, lines) == (0, ["note: 1 of 1 servers answer; asking them cost 0.002 USD"])
        else:
            assert code == 2 and lines[0].startswith("error: creator.evolve.") and says in lines[0] and len(lines) == 1


def test_validate_online_names_a_server_that_is_not_running(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = run_command(monkeypatch, capsys, "validate", "quickstart", "--set", evolver(api_base="http://127.0.0.1:9/v1"), "--online")
    assert code == 2 and "openai/tiny at http://127.0.0.1:9/v1 does not respond (no connection: ConnectError" in lines[0]
