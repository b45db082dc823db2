"""References that evolvers return: requests and replies of text methods, functions in files, and what recipes may combine."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eva_stages.core.errors import DataError
from eva_stages.core.generating import SeededLLM
from eva_stages.core.named_functions import FunctionCode
from eva_stages.core.parts import STATISTICS
from eva_stages.core.prompt_references import REQUEST
from eva_stages.core.rows import last_user_text, prompt_row
from eva_stages.creator.evolving import EvolvePrompts
from eva_stages.creator.function_calls import evolution_by
from eva_stages.creator.function_evolver import EvolveByFunction
from eva_stages.creator.rejecting import NO_PROMPT_AND_REFERENCE, read_prompt_and_reference
from eva_stages.lettercraft.language import parse
from eva_stages.lettercraft.player import LettercraftLLM
from tests.conftest import function_code
from tests.scripted import ScriptedLLM

EVOLVER = '''
def add_term(text, reference, rng):
    """Adds a term; fails on 13, returns None for 14, no reference for 15, the same prompt for 16."""
    if reference in ("13", "14"):
        return {}[reference] if reference == "13" else None
    if reference in ("15", "16"):
        return (text + " Hurry.", None, "hurry") if reference == "15" else (f" {text}", reference, "same")
    term = int(rng.integers(20, 99))
    return text.replace("?", f" + {term}?"), str(int(reference) + term), "add_term"
'''


def sum_row(*numbers: int) -> dict[str, Any]:
    text = f"What is {' + '.join(map(str, numbers))}?"
    return prompt_row([{"role": "user", "content": text}], "test", reference=str(sum(numbers)))


def evolve(llm: SeededLLM, inputs: list[dict[str, Any]], **settings: Any) -> list[dict[str, Any]]:
    step = EvolvePrompts(name="evolve", llm=llm, returns="prompt_and_reference", **settings)
    step.load()
    return next(step.process(inputs))


@pytest.fixture
def add_term(tmp_path: Path) -> FunctionCode:
    (tmp_path / "evolvers.py").write_text(EVOLVER)
    return function_code(tmp_path / "evolvers.py", "add_term")


def evolve_by(function: FunctionCode, inputs: list[dict[str, Any]], **settings: Any) -> list[dict[str, Any]]:
    step = EvolveByFunction(name="evolve", function=function, **settings)
    step.load()
    return next(step.process(inputs))


def test_the_request_shows_the_parent_s_reference_and_the_child_gets_its_own() -> None:
    replies = ['{"prompt": "What is 1 + 2 + 3?", "reference": "6"}', '```json\n{"prompt": "What is 9 - 2?", "reference": 7}\n```']
    llm = ScriptedLLM(replies=replies)
    first, second = evolve(llm, [sum_row(1, 2)], generations=2)
    assert (last_user_text(first["messages"]), first["reference"], first["rejected"]) == ("What is 1 + 2 + 3?", "6", None)
    assert (last_user_text(second["messages"]), second["reference"]) == ("What is 9 - 2?", "7")
    assert [f"#Reference of the Given Prompt#:\n{answer}\n" in text for answer, text in zip("36", llm.requests, strict=True)] == [True] * 2
    assert all(text.endswith(REQUEST) for text in llm.requests)
    llm = ScriptedLLM(replies=replies)
    evolve(llm, [{**sum_row(1, 2), "reference": None}], generations=1)
    assert "Reference of the Given Prompt" not in llm.requests[0] and llm.requests[0].endswith(REQUEST)


def test_lettercraft_s_evolver_returns_the_exact_answers() -> None:
    inputs = [
        prompt_row([{"role": "user", "content": f"Take {word}, reverse it."}], "test") for word in ("planet", "cab", "lemon", "comet")
    ]
    rows = evolve(LettercraftLLM(), inputs, generations=3)
    good_rows = [row for row in rows if row["rejected"] is None]
    assert len(good_rows) > 8 and {row["rejected"] for row in rows} <= {None, "unchanged", NO_PROMPT_AND_REFERENCE}
    assert all(parse(last_user_text(row["messages"])).answer == row["reference"] for row in good_rows)


@pytest.mark.parametrize(
    "reply",
    [
        "What is 1 + 2 + 3?",
        "",
        '{"prompt": "What is 1 + 2 + 3?"}',
        '{"prompt": "What is 1 + 2 + 3?", "reference": " "}',
        '{"prompt": "What is 1 + 2 + 3?", "reference": null}',
        '{"prompt": "What is 1 + 2 + 3?", "reference": ["6"]}',
        '{"prompt": "What is 1 + 2 + 3?", "reference": "6", "reference": "7"}',
        'Here it is: {"prompt": "What is 1 + 2 + 3?", "reference": "6"}',
        '["What is 1 + 2 + 3?", "6"]',
        '{"reference": "6"}',
        '{"prompt": "What is 1 + 2 + 3?", "reference": NaN}',
        '{"prompt": "What is 1 + 2 + 3? \\ud83d", "reference": "6"}',
        '{"prompt": "What is 1 + 2 + 3?", "reference": "6 \\ude00"}',
        '```json\n{"prompt": "What is 9?", "reference": "9"}\n```\n```json\n{"prompt": "What is 8?", "reference": "8"}\n```',
    ],
)
def test_a_reply_without_both_is_rejected_with_its_own_reason_and_has_no_reference(reply: str) -> None:
    parent = sum_row(1, 2)
    rejected_row, good_row = evolve(ScriptedLLM(replies=[reply, '{"prompt": "What is 9?", "reference": "9"}']), [parent], generations=2)
    assert rejected_row["rejected"] == NO_PROMPT_AND_REFERENCE and rejected_row["reference"] is None and rejected_row["failure"] is None
    assert rejected_row[STATISTICS]["rejected"] == 1 and good_row["parent_id"] == parent["prompt_id"]


def test_a_truncated_reply_and_an_unusable_prompt_keep_their_reasons() -> None:
    (truncated_row,) = evolve(ScriptedLLM(replies=['{"prompt": "What is'], finish_reason="length"), [sum_row(1, 2)], generations=1)
    assert truncated_row["rejected"] == "truncated"
    replies = ['{"prompt": "what is 1 + 2?", "reference": "3"}', '{"prompt": "I am sorry, but I cannot.", "reference": "3"}']
    rows = evolve(ScriptedLLM(replies=[*replies, '{"prompt": "", "reference": "3"}']), [sum_row(1, 2)], generations=3)
    assert [row["rejected"] for row in rows] == [None, "refusal", "empty"]
    assert read_prompt_and_reference('{"prompt": "p", "reference": 0.50}') == ("p", "0.50"), "the text of a number is not changed"
    for form in ("```JSON\r\n{}\r\n```", "```json {} ```", "\n```\n{}\n```\n"):
        assert read_prompt_and_reference(form.replace("{}", '{"prompt": "p", "reference": "\\ud83d\\ude00"}')) == ("p", "\U0001f600")


def test_a_function_evolves_with_references_and_its_failures_are_failed_calls(add_term: FunctionCode) -> None:
    inputs = [sum_row(1, 2), sum_row(6, 7), sum_row(7, 7), sum_row(7, 8), sum_row(8, 8)]
    rows = evolve_by(add_term, inputs, generations=2, returns="prompt_and_reference")
    by_root = {item["prompt_id"]: [row for row in rows if row["root_id"] == item["prompt_id"]] for item in inputs}
    good_rows, failed_rows, none_rows, bare_rows, equal_rows = by_root.values()
    assert [eval(last_user_text(row["messages"])[8:-1]) for row in good_rows] == [int(row["reference"]) for row in good_rows]
    assert good_rows[1]["parent_id"] == good_rows[0]["prompt_id"] and good_rows[0]["source"] == "evolved by function add_term"
    assert [row["failure"] for row in failed_rows] == ["the evolver raised KeyError: '13'"] and failed_rows[0][STATISTICS]["failed"] == 1
    assert len(none_rows) == 1 and none_rows[0]["failure"] == "the evolver returned None"
    assert [row["rejected"] for row in bare_rows] == [NO_PROMPT_AND_REFERENCE] * 2 and [row["rejected"] for row in equal_rows] == [
        "unchanged"
    ] * 2
    with pytest.raises(DataError, match="half a character"):
        evolution_by(lambda text, reference, rng: (text, "\ud83d", "half"), "What is 9?", "9", np.random.default_rng(0))
    (child,) = evolve_by(add_term, [inputs[3]], generations=1)
    assert child["rejected"] is None and child["reference"] is None, "without `returns`, a function may leave a reference out"


def test_a_function_s_evolution_does_not_depend_on_its_batch_and_the_first_sibling_is_the_first_of_a_chain(add_term: FunctionCode) -> None:
    inputs = [sum_row(1, number) for number in range(20, 26)]
    siblings = evolve_by(add_term, inputs, generations=3, shape="siblings", seed=5)
    single_rows = [row for item in inputs for row in evolve_by(add_term, [item], generations=3, shape="siblings", seed=5)]
    chain = evolve_by(add_term, inputs, generations=3, seed=5)
    assert [row["prompt_id"] for row in siblings] == [row["prompt_id"] for row in single_rows]
    assert [row["prompt_id"] for row in siblings[::3]] == [row["prompt_id"] for row in chain[::3]]
    assert {row["generation"] for row in siblings} == {1} and {row["generation"] for row in chain} == {1, 2, 3}
    assert siblings != evolve_by(add_term, inputs, generations=3, shape="siblings", seed=6)
