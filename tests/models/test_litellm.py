"""The LiteLLM generator against a real HTTP server that misbehaves."""

import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from eva_stages.core.errors import StageError
from eva_stages.core.notices import NoticeReader
from eva_stages.core.prompt_references import RESPONSE_FORMAT
from eva_stages.models.litellm_generator import CALLS, LiteLLMGenerator
from tests.fault_server import ChatServer, chat_server

KEY = "sk-never-to-be-seen-4711"
PRICE = {"input": 1000.0, "output": 2000.0}
"""10 tokens in and 5 out cost 0.02 USD."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("EVA_TEST_KEY", KEY)
    with chat_server() as running:
        yield running


def generator(server: ChatServer, **settings: object) -> LiteLLMGenerator:
    llm = LiteLLMGenerator(model="openai/tiny", api_base=server.base, api_key_env="EVA_TEST_KEY", **{"timeout": 30.0, **settings})
    llm.load()
    return llm


def prompts(count: int) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": f"prompt {index}"}] for index in range(count)]


def test_every_prompt_gets_its_n_answers_in_order_and_in_one_request_each(server: ChatServer) -> None:
    server.awaited_requests = 2
    outputs = generator(server, concurrency=4, price=PRICE).generate(prompts(12), 3, list(range(12)))
    for index, output in enumerate(outputs):
        texts = output["generations"]
        assert len(texts) == 3 == len(set(texts)) and all(str(text).startswith(f"prompt {index} [") for text in texts)
        assert output["finish_reasons"] == ["stop"] * 3
        assert output["statistics"]["output_tokens"] == [5, 5, 5] and output["statistics"]["input_tokens"] == [10] * 3
        assert sum(output["statistics"]["cost_usd"]) == pytest.approx(0.04)
    assert len(server.requests) == 12 and 1 < server.most_working <= 4
    assert {request["key"] for request in server.requests} == {f"Bearer {KEY}"}


def test_the_same_seed_asks_the_same(server: ChatServer) -> None:
    first, second = (generator(server).generate(prompts(2), 2, [5, 6]) for _ in range(2))
    assert first == second != generator(server).generate(prompts(2), 2, [7, 8])


@pytest.mark.parametrize("fault", ["429", "500", "cut", "malformed", "no_choices", "hang"])
def test_a_passing_fault_loses_nothing_and_doubles_nothing(server: ChatServer, fault: str) -> None:
    server.faults = [fault]
    outputs = generator(server, concurrency=2, timeout=2.0).generate(prompts(4), 2, [1, 2, 3, 4])
    assert [len(set(output["generations"])) for output in outputs] == [2, 2, 2, 2]
    assert all(str(output["generations"][0]).startswith(f"prompt {index} ") for index, output in enumerate(outputs))
    assert len(server.requests) == 5 and server.completed_requests == 4


def test_retry_after_is_honoured(server: ChatServer) -> None:
    server.faults = ["429"]
    generator(server).generate(prompts(1), 1, [1])
    first, second = (request["time"] for request in server.requests)
    assert second - first >= 1.0


def test_fewer_choices_than_asked_for_are_topped_up(server: ChatServer) -> None:
    server.faults = ["fewer"]
    (output,) = generator(server).generate(prompts(1), 4, [1])
    assert len(set(output["generations"])) == 4 and [request.get("n") for request in server.requests] == [4, 3]


def test_giving_up_leaves_null_and_its_reason(server: ChatServer) -> None:
    server.faults = ["500", "500"]
    failed_output, good_output = generator(server, concurrency=1, attempts=2).generate(prompts(2), 2, [1, 2])
    assert failed_output["generations"] == [None, None] and all(
        "gave up after 2 tries" in reason for reason in failed_output["finish_reasons"]
    )
    assert failed_output["statistics"]["output_tokens"] == [0, 0] and None not in good_output["generations"]


def test_a_refused_prompt_is_not_asked_again(server: ChatServer) -> None:
    server.faults = ["400"]
    (output,) = generator(server).generate(prompts(1), 1, [1])
    assert output["generations"] == [None] and output["finish_reasons"][0].startswith("refused:") and len(server.requests) == 1


def test_a_wrong_key_stops_the_stage_without_showing_it(server: ChatServer) -> None:
    server.faults = ["401"] * 9
    with pytest.raises(StageError, match="EVA_TEST_KEY") as error:
        generator(server).generate(prompts(3), 1, [1, 2, 3])
    assert KEY not in str(error.value)


def test_what_was_paid_for_is_not_asked_again_and_the_cap_holds(server: ChatServer, tmp_path: Path) -> None:
    settings = {"journal": str(tmp_path), "price": PRICE, "max_new_tokens": 5, "concurrency": 3}
    with pytest.raises(StageError, match=r"spending cap reached.*max_cost_usd"):
        generator(server, max_cost_usd=0.1, **settings).generate(prompts(20), 1, list(range(20)))
    with sqlite3.connect(tmp_path / CALLS) as connection:
        row_count, spent_usd = connection.execute("SELECT COUNT(*), SUM(usd) FROM calls").fetchone()
    assert 0 < row_count == server.completed_requests and 0 < spent_usd <= 0.1
    outputs = generator(server, max_cost_usd=9.0, **settings).generate(prompts(20), 1, list(range(20)))
    assert server.completed_requests == 20 == len({output["generations"][0] for output in outputs})
    assert sum(sum(output["statistics"]["cost_usd"]) for output in outputs) == pytest.approx(0.4)


def test_a_cap_needs_a_price(server: ChatServer) -> None:
    with pytest.raises(StageError, match=r"runtime\.price"):
        generator(server, max_cost_usd=1.0)


def test_the_key_is_in_no_file_no_log_and_no_result(server: ChatServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server.faults = ["500", "400", "ok"]
    llm = generator(server, journal=str(tmp_path), concurrency=1, attempts=1)
    outputs = llm.generate(prompts(3), 1, [1, 2, 3])
    assert KEY not in str(outputs) + repr(llm) and "scripted 400" in outputs[1]["finish_reasons"][0]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files and all(KEY.encode() not in path.read_bytes() for path in files)
    assert not any(KEY in record.getMessage() for record in caplog.records if not record.name.startswith(("httpcore", "openai", "httpx")))


def test_a_reply_s_schema_is_sent_until_the_provider_refuses_it(server: ChatServer, tmp_path: Path) -> None:
    llm = generator(server, concurrency=1, attempt=str(tmp_path), extra={"response_format": RESPONSE_FORMAT})
    (first,) = llm.generate(prompts(1), 1, [1])
    server.faults = ["400"]
    (second,), (third,) = (llm.generate([prompt], 1, [2]) for prompt in prompts(3)[1:])
    assert None not in [output["generations"][0] for output in (first, second, third)]
    assert [request.get("response_format") for request in server.requests] == [RESPONSE_FORMAT, RESPONSE_FORMAT, None, None]
    notices = NoticeReader(tmp_path)
    assert ["openai/tiny refuses response_format" in text for text in notices.new_texts()] == [True] and notices.lasting_texts()
    server.faults = ["400"] * 2
    (output,) = generator(server, extra={"response_format": RESPONSE_FORMAT}).generate(prompts(1), 1, [4])
    assert output["generations"] == [None] and output["finish_reasons"][0].startswith("refused:"), "the prompt is refused, not the schema"
