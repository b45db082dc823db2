"""Evolving within a step: the evolver's context, and what becomes of every evolution."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from distilabel.pipeline import Pipeline

from eva_stages.core.parts import STATISTICS
from eva_stages.core.rows import Message, last_user_text, prompt_row
from eva_stages.creator.context import Critique
from eva_stages.creator.evolving import EvolvePrompts
from eva_stages.creator.gate import JudgeValidity
from eva_stages.creator.step_evolving import StepEvolving
from tests.conftest import function_code
from tests.scripted import ScriptedLLM

QUESTION = "Compose an engaging travel blog post about a recent trip to Hawaii, highlighting cultural experiences."


def is_about_tea(text: str) -> str | None:
    """Leaves out prompts about tea."""
    return "tea" if "tea" in text else None


def parent(number: int) -> dict[str, Any]:
    row = prompt_row([{"role": "user", "content": f"Ask about number {number}."}], "test")
    return {**row, "responses": [f"good {number}", f"bad {number}"], "rewards": [1.0, 0.25], "score": 0.5 + number}


def is_short(messages: Sequence[Message]) -> bool:
    return len(last_user_text(messages)) < 200


def test_every_evolution_has_a_fate_and_the_evolver_sees_responses_and_critique(tmp_path: Path) -> None:
    (tmp_path / "questions.jsonl").write_text(f'{{"question": "{QUESTION}"}}\n')
    replies = [
        "Ask about rivers.",
        QUESTION,
        None,
        "Which tea is best?",
        "Sorry, but I cannot help.",
        "Ask about number 0.",
        "Ask why. " * 40,
        "Ask about lakes.",
    ]
    with Pipeline(name="test"):
        llm = ScriptedLLM(replies=replies)
        evolver = EvolvePrompts(name="evolve", llm=llm, generations=4, shape="siblings")
        critic = ScriptedLLM(replies=["Too vague.", "Too short."])
        critique = Critique(name="critique", llm=critic)
        judge = ScriptedLLM(replies=["[[A]]", "[[B]]", "[[B]]", "[[A]]"])
        gate = JudgeValidity(name="gate", llm=judge, answerable="judge")
    decontaminate = {"benchmarks": {"mine": str(tmp_path / "questions.jsonl")}, "ngram": 13, "overlap": 0.2}
    filters = [function_code(__file__, "is_about_tea")]
    evolving = StepEvolving(evolver, 1, 0.9, filters, decontaminate, True, critique, gate)
    parents = [parent(0), parent(1)]
    evolving.begin([pa.Table.from_pylist(parents).select(["prompt_id", "messages"])], None)
    evolving.load()
    rows = evolving.evolve(3, parents, is_short)
    evolving.unload()
    assert [row["parent_id"] for row in rows] == [parent(number)["prompt_id"] for number in (0, 0, 0, 0, 1, 1, 1, 1)]
    assert [row["score"] for row in rows] == [0.5] * 4 + [1.5] * 4
    fates = [row["fate"] for row in rows]
    assert fates[:4] == [None, "failed", "rejected:refusal", "rejected:exceeds_max_length"]
    assert fates[4:] == ["rejected:contaminated", "rejected:tea", "duplicate", "gate:answerable"]
    assert len(judge.requests) == 4
    assert all(
        f"good {number}" in llm.requests[number] and f"Too {word}" in llm.requests[number] for number, word in enumerate(("vague", "short"))
    )
    assert sum(row[STATISTICS].get("calls", 0) for row in rows) == 8
    assert sum(row[STATISTICS].get("critic_calls", 0) for row in rows) == 2
