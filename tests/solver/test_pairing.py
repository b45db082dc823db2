import numpy as np
import pyarrow as pa
import pytest

from eva_stages.core.errors import DataError
from eva_stages.core.rows import SCHEMAS, prompt_row
from eva_stages.core.tables import BATCH
from eva_stages.solver.pairing import MakePairs


def tables(responses: list[list[str | None]], rewards: list[list[float | None]]) -> tuple[pa.Table, pa.Table, pa.Table]:
    rows = [prompt_row([{"role": "user", "content": f"prompt {n}"}], "test") for n in range(len(responses))]
    prompts = pa.Table.from_pylist(rows, schema=SCHEMAS["prompts"])
    identity = prompts["prompt_id"]
    texts = pa.array(responses, pa.list_(pa.string()))
    return prompts, pa.table({"prompt_id": identity, "responses": texts}), pa.table({"prompt_id": identity, "rewards": pa.array(rewards)})


def test_the_best_response_is_chosen_and_the_worst_rejected() -> None:
    pairs, counts = MakePairs(name="pair").transform(*tables([["a", "b", "c"], ["d", "e", "f"]], [[1, 3, 2], [0.5, -1, 0.5]]))
    rows = pairs.to_pylist()
    assert [(row["chosen"], row["rejected"]) for row in rows] == [
        ([{"role": "assistant", "content": "b"}], [{"role": "assistant", "content": "a"}]),
        ([{"role": "assistant", "content": "d"}], [{"role": "assistant", "content": "e"}]),
    ]
    assert [(row["chosen_reward"], row["rejected_reward"]) for row in rows] == [(3, 1), (0.5, -1)]
    assert rows[1]["prompt"] == [{"role": "user", "content": "prompt 1"}]
    assert counts == {"pair": 2, "unscored": 0, "all_equal": 0, "small_gap": 0, "empty": 0}
    assert pairs.schema == SCHEMAS["pairs"]


def test_win_probabilities_come_along_where_the_reward_has_them() -> None:
    prompts, responses, rewards = tables([["a", "b", "c"], ["d", "e", "f"]], [[1, 3, 2], [0.5, -1, 0]])
    wins = pa.array([[0.4, 0.7, 0.6], [0.8, 0.1, None]], pa.list_(pa.float64()))
    columns = ["chosen_win_probability", "rejected_win_probability"]
    pairs, _ = MakePairs(name="pair").transform(prompts, responses, rewards.append_column("win_probability", wins))
    assert pairs.select(columns).to_pylist() == [dict(zip(columns, values, strict=True)) for values in ((0.7, 0.4), (0.8, 0.1))]
    pairs, _ = MakePairs(name="pair").transform(prompts, responses, rewards)
    assert pairs.schema == SCHEMAS["pairs"] and all(pairs[name].null_count == 2 for name in columns)


def test_prompts_without_a_pair_are_counted_by_reason() -> None:
    responses = [["a", "b"], ["c", "d"], ["e", "f"], [" ", "g"], [None, "h"], ["i", ""]]
    rewards = [[1.0, 1.0], [1.0, None], [1.0, 0.9], [1.0, 0.0], [None, 1.0], [1.0, 0.0]]
    pairs, counts = MakePairs(name="pair", min_gap=0.2).transform(*tables(responses, rewards))
    assert counts == {"pair": 1, "unscored": 2, "all_equal": 1, "small_gap": 1, "empty": 1}
    assert sum(counts.values()) == 6
    assert pairs["rejected"].to_pylist() == [[{"role": "assistant", "content": ""}]]


def test_no_pair_at_all_is_an_error() -> None:
    with pytest.raises(DataError, match="no prompt gives a preference pair"):
        MakePairs(name="pair").transform(*tables([["a", "b"]], [[1.0, 1.0]]))


def test_inputs_in_different_orders_are_refused() -> None:
    prompts, responses, rewards = tables([["a", "b"], ["c", "d"]], [[1, 0], [1, 0]])
    with pytest.raises(DataError, match="same order"):
        MakePairs(name="pair").transform(prompts, responses, rewards.take(pa.array([1, 0])))


def test_pairs_of_many_prompts_are_those_of_their_batches() -> None:
    count = 2 * BATCH + 5
    rng = np.random.default_rng(0)
    whole = tables([[f"{n} {k}" for k in range(3)] for n in range(count)], rng.integers(3, size=(count, 3)).astype(float).tolist())
    pairs, counts = MakePairs(name="pair").transform(*whole)
    parts = [MakePairs(name="pair").transform(*(table.slice(start, 1000) for table in whole)) for start in range(0, count, 1000)]
    assert pairs.equals(pa.concat_tables(part for part, _ in parts))
    assert counts == {name: sum(part[name] for _, part in parts) for name in counts} and sum(counts.values()) == count


def test_prompts_with_different_numbers_of_responses_are_an_error_however_far_apart() -> None:
    rewards = [[1.0, 2.0]] * BATCH + [[1.0, 2.0, 3.0]] * BATCH
    with pytest.raises(ValueError, match=r"different numbers of responses: \[2, 3\]"):
        MakePairs(name="pair").transform(*tables([[*map(str, reward)] for reward in rewards], rewards))
