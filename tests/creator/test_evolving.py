import numpy as np
import pytest

from eva_stages.core.config.function_fields import EVOLVE_METHOD
from eva_stages.core.generating import SeededLLM
from eva_stages.core.rows import prompt_row
from eva_stages.creator.evolve_methods import evol_instruct
from eva_stages.creator.evolving import EvolvePrompts
from eva_stages.creator.knobs import OF_REFERENCES
from eva_stages.creator.rejecting import read_evolution, rejection
from eva_stages.lettercraft.player import LettercraftLLM
from tests.scripted import ScriptedLLM

SEED = "Take planet, reverse it."


def rows(*texts: str) -> list[dict]:
    return [prompt_row([{"role": "user", "content": text}], "test") | {"_row": n} for n, text in enumerate(texts)]


def evolve(llm: SeededLLM, inputs: list[dict], **settings: object) -> list[dict]:
    step = EvolvePrompts(name="evolve", llm=llm, **settings)
    step.load()
    return next(step.process(inputs))


@pytest.mark.parametrize(
    ("evolved", "reason", "expected"),
    [
        ("A new prompt?", "stop", None),
        ("", "stop", "empty"),
        ("A new pro", "length", "truncated"),
        (" old prompt ", "stop", "unchanged"),
        ("Here is your #Rewritten Prompt#: x", "stop", "template_leak"),
        ("I'm sorry, but I can't.", "stop", "refusal"),
        ("x" * 101, "stop", "too_long"),
    ],
)
def test_why_an_evolution_is_rejected(evolved: str, reason: str, expected: str | None) -> None:
    assert rejection(evolved, "old prompt", reason, 100) == expected


def test_what_stands_behind_the_last_heading_is_the_evolution() -> None:
    assert read_evolution("#Rewritten Prompt#:\n new one \n") == "new one"
    assert read_evolution("new one") == "new one"
    assert read_evolution(None) == ""


def test_templates_are_drawn_uniformly_and_carry_the_prompt() -> None:
    selection = [evol_instruct(SEED, np.random.default_rng(seed)) for seed in range(500)]
    names = [mutation for mutation, _ in selection]
    assert set(names) == {"constraints", "deepening", "concretizing", "increased_reasoning_steps", "breadth"}
    assert all(70 < names.count(name) < 130 for name in set(names))
    assert all(SEED in meta and "<PROMPT>" not in meta for _, meta in selection)


def test_all_generations_are_kept_with_their_lineage() -> None:
    (seed,) = rows(SEED)
    children = evolve(ScriptedLLM(replies=["one", "two", "three", "four"]), [seed], generations=4)
    assert [row["messages"][0]["content"] for row in children] == ["one", "two", "three", "four"]
    assert [row["generation"] for row in children] == [1, 2, 3, 4]
    assert [row["parent_id"] for row in children] == [seed["prompt_id"], *(row["prompt_id"] for row in children[:3])]
    assert {row["root_id"] for row in children} == {seed["prompt_id"]}
    assert {row["_row"] for row in children} == {0} and all(row["mutation"] for row in children)


def test_after_a_rejected_generation_the_next_starts_from_the_last_good_prompt() -> None:
    (seed,) = rows(SEED)
    llm = ScriptedLLM(replies=["one", "", SEED.replace("planet", "comet"), "one"])
    children = evolve(llm, [seed], generations=4)
    assert [row["rejected"] for row in children] == [None, "empty", None, None]
    assert [row["parent_id"] for row in children] == [
        seed["prompt_id"],
        children[0]["prompt_id"],
        children[0]["prompt_id"],
        children[2]["prompt_id"],
    ]
    assert sum(row["_statistics"].get("rejected", 0) for row in children) == 1


def test_malformed_replies_never_break_the_batch() -> None:
    inputs = rows("a", "b", "c", "d")
    children = evolve(ScriptedLLM(replies=[None, *["", "#Rewritten Prompt#:", "fine"] * 2]), inputs, generations=2)
    assert len(children) == 7
    assert [row["rejected"] for row in children if row["_row"] < 3] == ["failed", *["empty"] * 4]
    assert children[5]["rejected"] is None and children[6]["rejected"] == "unchanged"


def test_the_last_user_turn_of_a_conversation_evolves() -> None:
    turns = [{"role": "user", "content": "first"}, {"role": "assistant", "content": "reply"}, {"role": "user", "content": "last"}]
    llm = ScriptedLLM(replies=["evolved"])
    (child,) = evolve(llm, [prompt_row(turns, "test")], generations=1)
    assert [turn["content"] for turn in child["messages"]] == ["first", "reply", "evolved"]
    assert "last" in llm.requests[0] and "first" not in llm.requests[0]


def test_an_evolution_does_not_depend_on_its_batch() -> None:
    inputs = rows(*(f"Take {'abcdefgh'[:n]}, reverse it." for n in range(2, 8)))
    whole_batch = evolve(LettercraftLLM(), inputs, generations=3, seed=5)
    single_rows = [row for item in inputs for row in evolve(LettercraftLLM(), [item], generations=3, seed=5)]
    assert [row["prompt_id"] for row in whole_batch] == [row["prompt_id"] for row in single_rows]


def test_siblings_all_start_from_the_selected_prompt_whatever_becomes_of_one() -> None:
    inputs = rows("first", "second")
    replies = ["a", "b", "", "b2", None, "b", "d", "b4"]
    children = evolve(ScriptedLLM(replies=list(replies)), inputs, generations=4, shape="siblings")
    assert [row["messages"][0]["content"] for row in children] == ["a", "", "", "d", "b", "b2", "b", "b4"]
    assert [row["rejected"] for row in children] == [None, "empty", "failed", None, None, None, None, None]
    assert [row["parent_id"] for row in children] == [inputs[0]["prompt_id"]] * 4 + [inputs[1]["prompt_id"]] * 4
    assert {row["generation"] for row in children} == {1}
    (grandchild,) = evolve(ScriptedLLM(replies=["grand"]), [children[0]], generations=1, shape="siblings")
    assert (grandchild["generation"], grandchild["root_id"]) == (2, inputs[0]["prompt_id"])


@pytest.mark.parametrize("method", [name for name in EVOLVE_METHOD.names if name not in (*OF_REFERENCES, "verbatim")])
def test_a_sibling_depends_on_seed_parent_and_number_and_the_first_is_that_of_a_chain(method: str) -> None:
    inputs = rows(*(f"Take {'abcdefgh'[:n]}, reverse it." for n in range(3, 9)))
    siblings = evolve(LettercraftLLM(), inputs, generations=4, seed=5, shape="siblings", method=method)
    single_rows = [
        row for item in inputs for row in evolve(LettercraftLLM(), [item], generations=4, seed=5, shape="siblings", method=method)
    ]
    chain = evolve(LettercraftLLM(), inputs, generations=4, seed=5, method=method)
    names = [(row["prompt_id"], row["mutation"]) for row in siblings]
    assert names == [(row["prompt_id"], row["mutation"]) for row in single_rows]
    assert names[::4] == [(row["prompt_id"], row["mutation"]) for row in chain[::4]]
    assert (names == [(row["prompt_id"], row["mutation"]) for row in chain]) == (method == "self_instruct")
    assert len(set(names)) > 2 * len(inputs), "siblings differ"
    other_seed = evolve(LettercraftLLM(), inputs, generations=4, seed=6, shape="siblings", method=method)
    assert names != [(row["prompt_id"], row["mutation"]) for row in other_seed]
