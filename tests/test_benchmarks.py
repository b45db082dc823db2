"""Whole evaluations through the command line: a real policy, a judge behind a real server that has a known preference."""

import json
import math
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from eva_stages.core.recipe_files import load_recipe
from eva_stages.core.tables import read_table
from eva_stages.planning.sizes import sizes
from tests.building import build_rounds
from tests.conftest import manifests, run_eva
from tests.fault_server import ChatServer, chat_server
from tests.killing import run_with_a_kill
from tests.official_files import alpaca_eval, arena_hard, mt_bench
from tests.tiny_models import save_policy, tokenizer

STRONG, WON_QUESTIONS, TIED_QUESTIONS, LOST_QUESTIONS = range(3), range(3, 5), range(5, 6), range(6, 8)
"""Arena-Hard's questions by what the judge thinks of the model's answers."""
BATTLES = 2 * (3 * len(STRONG) + len(WON_QUESTIONS) + len(TIED_QUESTIONS) + len(LOST_QUESTIONS))
WIN_RATE = 100 * 2 * (3 * len(STRONG) + len(WON_QUESTIONS) + len(TIED_QUESTIONS) / 2) / BATTLES
FIRST_TURN, SECOND_TURN = 4, 7.5
PREFERENCE = 0.75
FIRST_HELD_CALL = 6
CONCURRENCY = 2


def verdict(prompt: str) -> str:
    """What the judge says of an Arena-Hard prompt, whichever place the baseline's answer stands in."""
    number = int(re.search(r"Question (\d+)\?", prompt)[1])  # type: ignore[index]
    baseline_first = "The baseline says" in prompt.partition("<|B|>")[0]
    if number in TIED_QUESTIONS:
        return "[[A=B]]"
    mark = ">>" if number in STRONG else ">"
    model_wins = number not in LOST_QUESTIONS
    return f"[[B{mark}A]]" if model_wins == baseline_first else f"[[A{mark}B]]"


def opinion(body: dict[str, Any]) -> str:
    prompt = body["messages"][-1]["content"]
    if body.get("logprobs"):
        return "m"
    if "<|B|>" in prompt:
        return f"My final verdict is {verdict(prompt)}"
    return f"Rating: [[{SECOND_TURN if 'Second of' in prompt else FIRST_TURN}]]"


def preference(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Log-probabilities that prefer what is not the baseline's."""
    prompt = body["messages"][-1]["content"]
    first = 1 - PREFERENCE if "The baseline says" in prompt.partition('"M"')[0] else PREFERENCE
    top = [{"token": token, "logprob": math.log(share), "bytes": None} for token, share in (("m", first), ("M", 1 - first))]
    return [{**top[0], "top_logprobs": top}]


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as running:
        running.signs_replies, running.reply, running.logprobs = False, opinion, preference
        yield running


@pytest.fixture
def policies(tmp_path: Path) -> list[Path]:
    words = tokenizer(["Question 1? First of 2? Instruction 3. The baseline says: q4"] * 5)
    for name in ("one", "two"):
        save_policy(tmp_path / name, words)
    second_policy = AutoModelForCausalLM.from_pretrained(tmp_path / "two")
    torch.manual_seed(9)
    for weights in second_policy.parameters():
        torch.nn.init.normal_(weights, std=0.3)
    second_policy.save_pretrained(tmp_path / "two")
    return [tmp_path / "one", tmp_path / "two"]


def benchmarks(folder: Path, server: ChatServer) -> str:
    runtime = {"concurrency": CONCURRENCY, "price": {"input": 1000.0, "output": 2000.0}, "cache": str(folder / "cache.sqlite")}
    judge = {"kind": "litellm", "model": "openai/judge", "api_base": server.base, "runtime": runtime}
    chosen = [
        {"kind": "mt_bench", **mt_bench(folder, 4)},
        {"kind": "arena_hard", **arena_hard(folder, 8)},
        {"kind": "alpaca_eval", **alpaca_eval(folder, 4)},
    ]
    return json.dumps([{**entry, "max_new_tokens": 8, "judge": judge} for entry in chosen])


def test_known_preferences_come_out_and_every_judgment_is_paid_for_once(server: ChatServer, policies: list[Path], tmp_path: Path) -> None:
    settings = ("--set", f"evaluation.benchmarks={benchmarks(tmp_path, server)}", "--set", "limits.empty=1.0")
    run = tmp_path / "run"
    arguments = ("eval", "run", str(policies[0]), "--run-dir", str(run), *settings, "--json")

    plan = json.loads(run_eva("plan", "evaluate", *settings, "--run-dir", str(run), "--json").stdout)
    assert {entry["benchmark"]: entry["calls"] for entry in plan["judging"]} == {"mt-bench": 8, "arena-hard-v0.1": 16, "alpaca-eval": 4}
    assert all(0 < entry["expected_usd"] <= entry["usd"] for entry in plan["judging"])

    reached_event, killed_event = threading.Event(), threading.Event()

    def hold_call(body: dict[str, Any]) -> str:
        if server.completed_requests > FIRST_HELD_CALL and not killed_event.is_set():
            reached_event.set()
            killed_event.wait()
        return opinion(body)

    server.reply = hold_call
    output, was_killed = run_with_a_kill(arguments, reached_event.is_set)
    killed_event.set()
    assert was_killed and output.returncode == 1

    document = json.loads(run_eva(*arguments).stdout)
    assert 28 <= server.completed_requests <= 28 + 2 * CONCURRENCY
    recipe = load_recipe(str(run / "recipe.yaml"))
    stages = [stage for entry in build_rounds(recipe) for stage in entry.stages if stage.name.endswith("-judge")]
    planned_sizes = sizes(recipe, build_rounds(recipe), 1)
    assert sorted(planned_sizes[stage.fingerprint].units or 0 for stage in stages) == [4, 8, 16], "a judge is timed by the call"
    scores = {entry["benchmark"]: entry["scores"] for entry in document["benchmarks"]}
    assert scores["arena-hard-v0.1"]["score"]["value"] == pytest.approx(WIN_RATE) == scores["arena-hard-v0.1"]["official"]["score"]
    assert scores["mt-bench"]["score"]["value"] == (FIRST_TURN + SECOND_TURN) / 2 == scores["mt-bench"]["official"]["score"]
    assert (scores["mt-bench"]["official"]["turn1"], scores["mt-bench"]["official"]["turn2"]) == (FIRST_TURN, SECOND_TURN)
    assert scores["alpaca-eval"]["official"]["win_rate"] == pytest.approx(100 * PREFERENCE)
    assert scores["alpaca-eval"]["official"]["lc_win_rate"] is None and "df_gamed.csv" in scores["alpaca-eval"]["official"]["reason"]
    for name, calls in (("mt-bench", 8), ("arena-hard-v0.1", 16), ("alpaca-eval", 4)):
        judging = scores[name]["judging"]
        assert (judging["judgments"], judging["failed_calls"], judging["no_verdict"]) == (calls, 0, 0)
        assert judging["usd"] == pytest.approx(calls * 0.02)
    assert scores["arena-hard-v0.1"]["judging"]["first_place"] == 0.5 and scores["arena-hard-v0.1"]["judging"]["consistent"] == 1
    assert scores["alpaca-eval"]["judging"]["first_place"] is not None

    for label in ("0-base-mt-bench-judge", "0-base-arena-hard-v0.1-judge"):
        (folder,) = (run / "stages").glob(f"{label}-*")
        judgment_rows = read_table(folder / "data").to_pylist()
        assert len({(row["question_id"], row["game"]) for row in judgment_rows}) == len(judgment_rows)
        assert all(row["raw"] and row["prompt"] for row in judgment_rows)
    (folder,) = (run / "stages").glob("0-base-mt-bench-judge-*")
    second = [row for row in read_table(folder / "data").to_pylist() if row["game"] == 2]
    (folder,) = (run / "stages").glob("0-base-mt-bench-answer-*")
    answers = {row["prompt_id"]: row["responses"] for row in read_table(folder / "data").to_pylist()}
    assert all(f"### Assistant A:\n{answers[row['prompt_id']][0]}\n\n### User:\nSecond of" in row["prompt"] for row in second)

    (folder,) = (run / "stages").glob("0-base-arena-hard-v0.1-score-*")
    files = {name: str(folder / "data" / f"{name}.jsonl") for name in ("judgments", "answers")}
    document_again = json.loads(
        run_eva("eval", "score", "arena-hard", "--judgments", files["judgments"], "--answers", files["answers"], "--json").stdout
    )
    assert (
        document_again["models"][0]["score"] == pytest.approx(WIN_RATE)
        and document_again["models"][0]["ci"] == scores["arena-hard-v0.1"]["official"]["ci"]
    )

    reply_count = server.completed_requests
    assert json.loads(run_eva(*arguments).stdout)["benchmarks"] == document["benchmarks"]
    assert server.completed_requests == reply_count
    other_command = ("eval", "run", str(policies[1]), "--run-dir", str(tmp_path / "other"), "--bench", "arena-hard", *settings)
    server.faults = ["400", "400"]
    error_text = run_eva(*other_command, code=1).stderr
    assert "2 of 16 judge calls failed (12.5%), above the limit limits.unjudged = 2.0%; most often (2): refused" in error_text
    assert "the next attempt reruns only the rows that failed" in error_text
    assert server.completed_requests == reply_count + 14
    error_text = run_eva(*other_command).stdout
    assert server.completed_requests == reply_count + 16 and "arena-hard-v0.1" in error_text and f"{WIN_RATE:.2f}" in error_text
    assert manifests(tmp_path / "other")["0-base-arena-hard-v0.1-judge"]["counts"]["cost_usd"] == pytest.approx(16 * 0.02)
