"""The rewriter in the loop: what it is asked, which rewrites are taken, and what the pairs say about them."""

import pyarrow as pa
import pytest
from distilabel.pipeline import Pipeline

from eva_stages.core.errors import DataError
from eva_stages.core.rows import SCHEMAS, prompt_row
from eva_stages.lettercraft.player import LettercraftLLM
from eva_stages.solver.rewriting import RewriteChosen, TakeRewrites, read_rewrite, rejection


def says(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


@pytest.mark.parametrize(
    ("reply", "finish", "reason"),
    [
        ("A better answer.", "stop", None),
        ("#Rewritten Response#:\nA better answer.", "stop", None),
        (None, "prompt too long", "failed"),
        ("  ", "stop", "empty"),
        ("#Rewritten Response#:\n", "stop", "empty"),
        ("A better answ", "length", "truncated"),
        (" A good answer.\n", "stop", "unchanged"),
        ("Better.", "stop", "too_short"),
        ("A better answer, and then some more of it.", "stop", "too_long"),
    ],
)
def test_what_cannot_be_used_has_its_reason(reply: str | None, finish: str, reason: str | None) -> None:
    assert rejection(reply, finish, "A good answer.", 0.6, 1.5) == reason
    assert reason or read_rewrite(reply) == "A better answer."


def test_the_rewriter_gets_the_whole_conversation_and_its_seed_is_the_prompts() -> None:
    turns = [
        {"role": "user", "content": "Take moon, reverse it."},
        {"role": "assistant", "content": "noom"},
        {"role": "user", "content": "Take planet, reverse it."},
    ]
    rows = [
        {"prompt_id": prompt_row(turns, "test")["prompt_id"], "prompt": turns, "chosen": says("tenalx")},
        {"prompt_id": "0" * 24, "prompt": turns[:1], "chosen": says("no")},
        {"prompt_id": "1" * 24, "prompt": turns[:1], "chosen": says("noom")},
    ]
    with Pipeline(name="rewrite"):
        step = RewriteChosen(llm=LettercraftLLM(), seed=3)
    prompt = step.format_input(rows[0])[0]["content"]
    assert "user: Take moon, reverse it.\nassistant: noom\nuser: Take planet, reverse it.\n" in prompt and "\ntenalx\n" in prompt
    (rewritten_rows,) = step.process([dict(row) for row in rows])
    assert [row["responses"] for row in rewritten_rows] == [["tenalp"], [None], [None]]
    assert [row["reason"] for row in rewritten_rows] == [None, "too_long", "unchanged"]
    assert rewritten_rows[0]["_statistics"]["rewrites"] == 1 and rewritten_rows[1]["_statistics"]["rejected"] == 1
    (repeated_rows,) = step.process([dict(rows[2]), dict(rows[0])])
    assert [row["responses"] for row in repeated_rows] == [[None], ["tenalp"]]


def tables(*rewards: tuple[float, float | None, str | None]) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Pairs, rewrites and their rewards from (original reward, rewrite's reward, reason of rejection)."""
    ids = [f"{n:024x}" for n in range(len(rewards))]
    question = [{"role": "user", "content": "?"}]
    pairs = [
        {"prompt_id": name, "prompt": question, "chosen": says(f"old {name}"), "rejected": says("bad"), "chosen_reward": reward_pair[0]}
        for name, reward_pair in zip(ids, rewards, strict=True)
    ]
    rewrites = [
        {"prompt_id": name, "responses": [None if reward_pair[2] else f"new {name}"], "reason": reward_pair[2]}
        for name, reward_pair in zip(ids, rewards, strict=True)
    ]
    scores = [{"prompt_id": name, "rewards": [reward_pair[1]]} for name, reward_pair in zip(ids, rewards, strict=True)]
    return (
        pa.Table.from_pylist(pairs, schema=SCHEMAS["pairs"]),
        pa.Table.from_pylist(rewrites, schema=SCHEMAS["rewrites"]),
        pa.Table.from_pylist(scores, schema=pa.schema([("prompt_id", pa.string()), ("rewards", pa.list_(pa.float64()))])),
    )


@pytest.mark.parametrize(
    ("keep", "taken_ids"), [("always", ["new", "new", "new", "old", "old"]), ("if_no_worse", ["new", "old", "new", "old", "old"])]
)
def test_rewrites_are_taken_by_the_rule_and_the_pairs_keep_what_they_replaced(keep: str, taken_ids: list[str]) -> None:
    input_tables = tables((0.5, 0.9, None), (0.5, 0.4, None), (0.5, 0.5, None), (0.5, None, None), (0.5, None, "empty"))
    with Pipeline(name="take"):
        step = TakeRewrites(keep=keep)
    output, counts = step.transform(*input_tables)
    assert output.schema == SCHEMAS["rewritten_pairs"]
    rows = output.to_pylist()
    assert [row["chosen"][0]["content"].split()[0] for row in rows] == taken_ids
    assert [row["rewritten"] for row in rows] == [word == "new" for word in taken_ids]
    assert rows[0]["chosen_reward"] == 0.9 and rows[0]["original_reward"] == 0.5
    assert rows[0]["original_chosen"][0]["content"] == f"old {rows[0]['prompt_id']}"
    assert rows[4]["chosen_reward"] == 0.5 and rows[4]["original_reward"] is None and rows[4]["original_chosen"] is None
    assert counts == {"pair": 5, "rewritten": taken_ids.count("new"), "unscored": 1, "empty": 1} | (
        {"worse": 1} if keep != "always" else {}
    )


def test_rewrites_of_other_pairs_are_refused() -> None:
    pairs, rewrites, rewards = tables((0.5, 0.9, None), (0.5, 0.4, None))
    with Pipeline(name="take"):
        step = TakeRewrites()
    with pytest.raises(DataError, match="same order"):
        step.transform(pairs, rewrites.take(pa.array([1, 0])), rewards)
