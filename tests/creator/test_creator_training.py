"""Utilities and pairs of siblings against an independent computation."""

import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from eva_stages.core.distil import TableStep
from eva_stages.core.rows import SCHEMAS, one_message, prompt_row
from eva_stages.creator.sibling_pairs import SiblingPairs, least_difference, rloo_pairs, sibling_pairs, sibling_rewards
from eva_stages.creator.sketching import sketches
from eva_stages.creator.utilities import Children, Utilities

WORDS = ["reverse", "sort", "double", "planet", "winter", "garden", "letter", "middle", "orange", "silver"]


def evolutions(parents: int = 4, siblings: int = 4, seed: int = 0) -> pa.Table:
    """Evolutions of which the second is rejected, the third failed, and the last of each parent repeats the first."""
    rng, rows = np.random.default_rng(seed), []
    for parent in range(parents):
        for number in range(siblings):
            text = f"Take {' '.join(rng.choice(WORDS, 4))} of parent {parent}."
            text = rows[-number]["reply"] if number and number == siblings - 1 else text
            row = prompt_row([{"role": "user", "content": text}], "evolved", parent_id=f"p{parent}", root_id="r", generation=1)
            place = len(rows)
            reason = {1: "refusal", 2: "failed"}.get(place)
            rows.append(
                row | {"rejected": reason, "failure": None, "meta_prompt": f"meta {parent}", "reply": text, "reply_ids": [place, number, 1]}
            )
    return pa.Table.from_pylist(rows, schema=SCHEMAS["recorded_evolutions"])


def run(step: TableStep, *tables: pa.Table) -> tuple[list[dict[str, Any]], dict[str, int]]:
    table, counts = step.transform(*tables)
    return table.to_pylist(), counts


def prompt_table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SCHEMAS["prompts"])


def test_utilities_are_learnability_less_similarity() -> None:
    children, _ = run(Children(name="step"), evolutions())
    successes = np.random.default_rng(2).integers(0, 2, (len(children), 4)).astype(float)
    rewards = pa.Table.from_pylist(
        [{"prompt_id": row["prompt_id"], "rewards": values} for row, values in zip(children, successes.tolist(), strict=True)]
    )
    new_prompts = prompt_table(children)
    memory = prompt_table([prompt_row([{"role": "user", "content": "Take nothing."}], "seed")])
    step = Utilities(name="step", similarity_penalty=0.1, metric="learnability")
    utilities, _ = run(step, evolutions(), new_prompts, rewards, new_prompts, memory)
    shares = dict(zip((row["prompt_id"] for row in children), successes.mean(axis=1).tolist(), strict=True))
    valid_rows = [row for row in utilities if row["valid"]]
    assert len({row["utility"] for row in valid_rows}) > 3
    for row in valid_rows:
        share = shares[row["prompt_id"]]
        assert row["utility"] == pytest.approx(share * (1 - share) - 0.1 * row["similarity"])


def test_utilities_are_spread_less_similarity_and_unknown_ones_are_null() -> None:
    evolved = evolutions()
    rows = evolved.to_pylist()
    children, counts = run(Children(name="step"), evolved)
    assert counts["children"] == len(children) == len({row["prompt_id"] for row in children})
    rng = np.random.default_rng(1)
    rewards = [{"prompt_id": row["prompt_id"], "rewards": rng.random(3).tolist()} for row in children]
    rewards[4]["rewards"][1] = None
    memory = [prompt_row([{"role": "user", "content": f"Take {' '.join(rng.choice(WORDS, 3))}."}], "seed") for _ in range(6)]
    new_prompts = [row for index, row in enumerate(children) if index != 1]
    tables = [pa.Table.from_pylist(part) for part in (rewards, new_prompts, memory)]
    utilities, counts = run(Utilities(name="step", similarity_penalty=0.3), evolved, prompt_table(children), *tables)

    known_rewards = {row["prompt_id"]: np.array(row["rewards"]) for row in rewards if None not in row["rewards"]}
    means = np.array([values.mean() for values in known_rewards.values()])
    memory_sketches = sketches([row["messages"][0]["content"] for row in memory])
    seen_ids: set[str] = set()
    for row, utility in zip(rows, utilities, strict=True):
        is_new = row["prompt_id"] in {new["prompt_id"] for new in new_prompts} and row["prompt_id"] not in seen_ids
        seen_ids.add(row["prompt_id"])
        if row["rejected"] is not None:
            assert utility["valid"] is (None if row["rejected"] == "failed" else False)
            assert utility["utility"] == (None if row["rejected"] == "failed" else 0) and utility["spread"] is None
            continue
        sketch = sketches([row["messages"][0]["content"]])[0]
        similarity = max((memory_sketch == sketch).mean() for memory_sketch in memory_sketches) if is_new else 1.0
        assert utility["valid"] is True and utility["similarity"] == pytest.approx(similarity)
        if row["prompt_id"] not in known_rewards:
            assert utility["utility"] is None and utility["spread"] is None
            continue
        values = known_rewards[row["prompt_id"]]
        spread = values.std() * np.exp(-((values.mean() - np.median(means)) ** 2) / (2 * means.std() ** 2))
        assert utility["utility"] == pytest.approx(spread - 0.3 * similarity)
    unknown = sum(row["utility"] is None for row in utilities)
    assert counts == {"valid": 14, "invalid": 1, "unknown": unknown} and unknown > 1


def test_the_gate_decides_what_is_valid_and_what_it_never_saw_is_unknown() -> None:
    rows = evolutions(parents=3).to_pylist()
    rows[7]["reference"] = "another"  # a copy of 4
    rows[8]["messages"], rows[8]["prompt_id"] = rows[0]["messages"], rows[0]["prompt_id"]  # 3 is a copy of 0 too
    evolved = pa.Table.from_pylist(rows, schema=SCHEMAS["recorded_evolutions"])
    children, _ = run(Children(name="step"), evolved)
    verdict_by_place = {0: True, 4: True, 5: False, 6: None}
    verdicts = pa.table({"prompt_id": [rows[place]["prompt_id"] for place in verdict_by_place], "valid": list(verdict_by_place.values())})
    passed_rows = [rows[place] for place in (0, 4)]
    rewards = [{"prompt_id": row["prompt_id"], "rewards": [0.0, 1.0]} for row in passed_rows]
    memory = prompt_table([prompt_row([{"role": "user", "content": "Sort."}], "seed")])
    tables = (prompt_table(children), pa.Table.from_pylist(rewards), prompt_table(passed_rows), memory, verdicts)
    utilities, _ = run(Utilities(name="step"), evolved, *tables)
    expected = {0: True, 1: False, 2: None, 3: True, 4: True, 5: False, 6: None, 7: None, 8: True, 9: None, 10: None, 11: None}
    assert {place: row["valid"] for place, row in enumerate(utilities)} == expected
    assert all((row["utility"] is None) == (row["valid"] is None) for row in utilities)
    assert [utilities[place]["similarity"] for place in (3, 8)] == [1.0] * 2


def test_an_invalid_evolution_never_wins_and_unknown_ones_are_in_no_pair() -> None:
    rng = np.random.default_rng(2)
    for _ in range(300):
        size = int(rng.integers(1, 7))
        valid = rng.integers(0, 2, size).astype(float)
        utility = np.where(valid == 1, rng.normal(size=size).round(1), 0.0)
        utility[rng.random(size) < 0.2] = np.nan
        margin = float(rng.choice([0.0, 0.3]))
        expected = {
            (first, second)
            for first, second in itertools.permutations(range(size), 2)
            if np.isfinite(utility[[first, second]]).all()
            and (valid[first] > valid[second] or (valid[first] == valid[second] == 1 and utility[first] - utility[second] > margin))
        }
        pairs = sibling_pairs(valid, utility, margin)
        assert set(pairs) == expected and len(pairs) == len(expected)
        assert all(valid[better] == 1 for better, _ in pairs)
        differences = [utility[better] - utility[worse] for better, worse in pairs]
        assert differences == sorted(differences, reverse=True)
        rewards = sibling_rewards(valid, utility)
        assert not (rewards < 0).any() and (rewards[valid == 0] == 0).all()
        assert all(rewards[better] > rewards[worse] for better, worse in rloo_pairs(rewards))


def utilities_of(evolved: pa.Table, valid: list[bool | None], utility: list[float | None]) -> pa.Table:
    return pa.table({"prompt_id": evolved["prompt_id"], "valid": pa.array(valid, pa.bool_()), "utility": pa.array(utility, pa.float64())})


def test_pairs_have_the_meta_prompt_and_the_replies_as_sampled() -> None:
    evolved = evolutions(parents=3, siblings=4)
    utility = np.random.default_rng(3).random(12)
    utility[3::4] = utility[0::4]
    table = utilities_of(evolved, [True] * 12, utility.tolist())
    rows, counts = run(SiblingPairs(name="step", pairs_per_parent=2, replay=0.0, iteration=1), evolved, table)
    margin = least_difference(np.ones(12), utility)
    assert margin == pytest.approx(utility.std() / 2)
    assert counts["pair"] == len(rows) > 0 and max(sum(row["prompt_id"] == f"p{parent}" for row in rows) for parent in range(3)) == 2
    replies = evolved.to_pylist()
    for row in rows:
        better, worse = (replies[row[f"{side}_ids"][0]] for side in ("chosen", "rejected"))
        assert row["prompt"] == [{"role": "user", "content": f"meta {row['prompt_id'][1:]}"}] and row["iteration"] == 1
        assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == (better["reply"], worse["reply"])
        assert better["parent_id"] == worse["parent_id"] == row["prompt_id"] and better["prompt_id"] != worse["prompt_id"]
        assert row["chosen_reward"] - row["rejected_reward"] > margin
    best, _ = run(SiblingPairs(name="step", objective="supervised", replay=0.0), evolved, table)
    assert [row["chosen_ids"][0] // 4 for row in best] == sorted({row["chosen_ids"][0] // 4 for row in rows})
    every_pair, _ = run(SiblingPairs(name="step", objective="rloo"), evolved, table)
    assert len(every_pair) == 3 * 5, "all pairs of siblings, without that of two equal replies"


def test_a_quarter_of_the_pairs_is_replayed_and_shuffling_changes_only_the_sides() -> None:
    evolved = evolutions(parents=20, siblings=3)
    utility = np.random.default_rng(4).random(60)
    table = utilities_of(evolved, [True] * 60, utility.tolist())
    earlier, _ = SiblingPairs(name="step", replay=0.25, iteration=1).transform(evolved, table)
    rows, counts = run(SiblingPairs(name="step", replay=0.25, iteration=3, seed=1), evolved, table, earlier, earlier.slice(0, 0))
    assert (
        counts["replayed"] == round(counts["pair"] / 3) and [row["iteration"] for row in rows[counts["pair"] :]] == [1] * counts["replayed"]
    )
    shuffled_rows, _ = run(SiblingPairs(name="step", preferences="shuffled", replay=0.25, iteration=3, seed=1), evolved, table, earlier)
    sides, new_sides = ([(row["chosen_ids"], row["rejected_ids"]) for row in pairs] for pairs in (rows, shuffled_rows))
    exchanges = [old != new for old, new in zip(sides, new_sides, strict=True)]
    assert 0.2 < np.mean(exchanges[: counts["pair"]]) < 0.8
    assert [sorted(pair) for pair in sides] == [sorted(pair) for pair in new_sides]


def test_no_pair_is_no_error() -> None:
    evolved = evolutions(parents=2)
    rows, counts = run(SiblingPairs(name="step"), evolved, utilities_of(evolved, [None] * 8, [None] * 8))
    assert rows == [] and counts["pair"] == 0 and counts["parents_without_pair"] == 2


def test_one_message_is_a_list_for_each_text() -> None:
    assert one_message(pa.array(["a", None]), "user").to_pylist() == [[{"role": "user", "content": text}] for text in ("a", "")]
