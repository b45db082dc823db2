"""Online training with an evolver, rewards or a gate that fail: it goes on with what is there, and no call is paid twice."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from distilabel.pipeline import Pipeline

from eva_stages.core.errors import StageError
from eva_stages.core.rows import Message
from eva_stages.creator.curriculum import Curriculum
from eva_stages.creator.evolving import EvolvePrompts
from eva_stages.creator.gate import JudgeValidity
from eva_stages.creator.step_evolving import StepEvolving
from eva_stages.models.litellm_generator import LiteLLMGenerator
from tests.conftest import function_code
from tests.creator.test_curriculum import SIZE, prompt_set, results, tables
from tests.fault_server import ChatServer, chat_server

STEPS = 8
PARENTS, CHILDREN = 2, 2
"""Of a step."""
CALLS = PARENTS * CHILDREN
PRICE = {"input": 0.0, "output": 2000.0}
CALL_USD, LARGEST_CALL_USD = 0.01, 0.016
"""What a reply of the server costs, 5 tokens, and what one of `max_new_tokens` would cost."""


def is_never_valid(messages: Sequence[Message], reference: str | None) -> bool:
    return False


def fits(messages: Sequence[Message]) -> bool:
    return True


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as running:
        running.reply = lambda body: f"Evolution {body['seed']}"
        yield running


def curriculum(server: ChatServer, folder: Path, lag: int, gate: JudgeValidity | None = None, **settings: Any) -> Curriculum:
    """Training on prompts of the buffer and on seed prompts, whose evolver is the server."""
    with Pipeline(name="test"):
        llm = LiteLLMGenerator(
            model="openai/tiny",
            api_base=server.base,
            attempts=1,
            concurrency=1,
            price=PRICE,
            max_new_tokens=8,
            journal=str(folder),
            **settings,
        )
        evolver = EvolvePrompts(name="evolve", llm=llm, generations=CHILDREN, shape="siblings")
    selection = {"kind": "weighted", "fraction": PARENTS / SIZE}
    return Curriculum(
        prompt_set(folder / "prompts"),
        3,
        SIZE,
        "reward_gap",
        None,
        0.5,
        {"size": 64},
        selection,
        StepEvolving(evolver, 5, None, gate=gate),
        lag,
    )


def train(
    part: Curriculum, folder: Path, steps: int = STEPS, after_step: Callable[[int], None] = lambda step: None
) -> list[dict[str, float]]:
    """Run the steps of an interval, with a checkpoint after every fourth; returns what they log."""
    part.begin(fits, None, folder / "journal", is_new=True)
    logs = []
    for step in range(1, steps + 1):
        prompts = part.draw(step)
        assert len({prompt.row["prompt_id"] for prompt in prompts}) == SIZE
        logs.append(part.record(step, prompts, results(step, prompts)))
        if step % 4 == 0:
            part.save(step, folder / str(step), folder / "journal", is_end=step == steps)
        after_step(step)
    return logs


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")


@pytest.mark.parametrize("lag", [0, 2])
def test_training_goes_on_while_the_evolver_fails_and_no_failure_becomes_a_reward(server: ChatServer, lag: int, tmp_path: Path) -> None:
    failed_count = 2 * CALLS
    server.faults = ["500"] * failed_count
    part = curriculum(server, tmp_path, lag)
    logs = train(part, tmp_path)
    counts, failures = part.close()
    evolutions, uses = tables(tmp_path / "journal", "evolutions"), tables(tmp_path / "journal", "uses")
    assert counts["failed"] == counts["fate_failed"] == failed_count
    assert logs[-1]["failed_calls"] == failed_count and any("500" in reason for reason in failures)
    failed_rows = [row for row in evolutions if row["fate"] == "failed"]
    assert len(failed_rows) == failed_count and all("500" in row["failure"] and row["inserted_step"] is None for row in failed_rows)
    assert len(evolutions) == CHILDREN * len(tables(tmp_path / "journal", "selections"))
    assert counts["fate_inserted"] > 0 and counts["buffer"] == counts["fate_inserted"]  # it recovered

    assert len(uses) == SIZE * STEPS
    pairs = [pair for row in uses for pair in zip(row["rewards"], row["failures"], strict=True)]
    assert any(reward is None for reward, _ in pairs) and all((reward is None) == (failure == "no number") for reward, failure in pairs)
    assert all((row["score"] is None) == (None in row["rewards"]) for row in uses)
    unscored_ids = {(row["step"], row["prompt_id"]) for row in uses if row["score"] is None}
    assert counts["kept_scores"] == len(unscored_ids) > 0
    assert not unscored_ids & {(row["step"], row["prompt_id"]) for row in tables(tmp_path / "journal", "selections")}


@pytest.mark.parametrize("lag", [0, 2])
def test_with_a_gate_that_rejects_everything_training_goes_on_without_evolutions(server: ChatServer, lag: int, tmp_path: Path) -> None:
    with Pipeline(name="test"):
        gate = JudgeValidity(name="gate", answerable=function_code(__file__, "is_never_valid"))
    part = curriculum(server, tmp_path, lag, gate)
    logs = train(part, tmp_path)
    counts, _ = part.close()
    evolutions = tables(tmp_path / "journal", "evolutions")
    assert {row["fate"] for row in evolutions} == {"gate:answerable"} and counts["fate_gate"] == len(evolutions) > 0
    assert counts["buffer"] == logs[-1]["inserted"] == 0 and all(row["buffer_share"] == 0 for row in logs)


def test_after_a_kill_no_reply_is_paid_again_and_the_spending_cap_holds(server: ChatServer, tmp_path: Path) -> None:
    killed_run = curriculum(server, tmp_path, 0)
    train(killed_run, tmp_path, steps=3)  # killed before a checkpoint
    paid_count = len(server.requests)
    assert paid_count == server.completed_requests > 0
    second_attempt = curriculum(server, tmp_path, 0)
    train(second_attempt, tmp_path, steps=3)
    assert len(server.requests) == paid_count

    capped_run = curriculum(server, tmp_path, 0, max_cost_usd=paid_count * CALL_USD + 1.5 * LARGEST_CALL_USD)
    with pytest.raises(StageError, match=r"spending cap reached.*max_cost_usd"):
        train(capped_run, tmp_path)
    assert len(server.requests) == paid_count + 1
