import hashlib

import numpy as np
import pyarrow as pa
import pytest

from eva_stages.core.config.function_fields import SELECTION
from eva_stages.core.errors import DataError
from eva_stages.creator.selection import Select, greedy_selection, stratified_selection, topic_balanced, weighted_selection


def ids(n: int) -> list[str]:
    return [hashlib.sha256(str(k).encode()).hexdigest()[:24] for k in range(n)]


def info(weights: list[float], known_ids: list[bool] | None = None) -> pa.Table:
    uniform = [1.0 if item else None for item in known_ids or [True] * len(weights)]
    return pa.table({"prompt_id": ids(len(weights)), "weight": weights, "uniform": pa.array(uniform, pa.float64())})


def test_weighted_draws_are_those_of_drawing_one_by_one_without_replacement() -> None:
    w = np.array([1.0, 2.0, 3.0, 4.0])
    rng = np.random.default_rng(0)
    selection = np.array([weighted_selection(w, rng.random(4), 2) for _ in range(40_000)])
    first = np.bincount(selection[:, 0], minlength=4) / len(selection)
    assert first == pytest.approx(w / 10, abs=0.01)
    after_last = selection[selection[:, 0] == 3][:, 1]
    assert np.bincount(after_last, minlength=3) / len(after_last) == pytest.approx([1 / 6, 2 / 6, 3 / 6], abs=0.015)


def test_weights_of_zero_are_drawn_only_when_nothing_else_is_left() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        selection = weighted_selection(np.array([0, 1.0, 0, 2.0]), rng.random(4), 3)
        assert set(selection[:2]) == {1, 3} and selection[2] in (0, 2)


def test_greedy_takes_the_largest() -> None:
    assert greedy_selection(np.array([1, 5, 3, 4.0]), np.random.default_rng(0).random(4), 2).tolist() == [1, 3]


def test_stratified_takes_equally_from_every_tenth() -> None:
    w = np.arange(1000.0)
    selection = stratified_selection(w, np.random.default_rng(0).random(1000), 250)
    assert np.bincount(selection // 100).tolist() == [25] * 10


@pytest.mark.parametrize("kind", SELECTION.names)
def test_a_selection_has_no_prompt_twice_and_the_asked_size(kind: str) -> None:
    table, _ = Select(name="select", kind=kind, fraction=0.25, seed=1).transform(info(list(np.linspace(0, 1, 400))))
    assert len(table) == 100 == len(set(table["prompt_id"].to_pylist()))
    assert table["draw"].to_pylist() == list(range(100))


def test_probabilities_are_weights_over_their_sum() -> None:
    table, _ = Select(name="select", fraction=1.0).transform(info([1.0, 3.0, 0.0]))
    chances = dict(zip(table["prompt_id"].to_pylist(), table["probability"].to_pylist(), strict=True))
    assert [chances[item] for item in ids(3)] == pytest.approx([0.25, 0.75, 0])


def test_unscored_prompts_are_never_drawn_and_counted() -> None:
    table, counts = Select(name="select", fraction=1.0).transform(info([1.0, 0.0, 2.0], [True, False, True]))
    assert ids(3)[1] not in table["prompt_id"].to_pylist() and counts["not_selectable"] == 1


def test_all_weights_zero_means_uniform() -> None:
    table, _ = Select(name="select", fraction=0.5).transform(info([0.0] * 8))
    assert table["probability"].to_pylist() == [0.125] * 4


def test_the_draw_does_not_depend_on_the_order_of_the_rows() -> None:
    table = info(list(np.linspace(0, 1, 50)))
    step = Select(name="select", fraction=0.3, seed=9)
    mixed_set = table.take(pa.array(np.random.default_rng(0).permutation(50)))
    assert step.transform(table)[0]["prompt_id"].to_pylist() == step.transform(mixed_set)[0]["prompt_id"].to_pylist()


def test_nothing_scored_is_an_error() -> None:
    with pytest.raises(DataError, match="0 of 2 prompts are scored"):
        Select(name="select").transform(info([0.0, 0.0], [False, False]))


def test_prompts_unlike_earlier_ones_are_likelier() -> None:
    known_ids = ids(4)
    table = pa.table({"prompt_id": known_ids, "weight": [1.0, 1.0, 0.5, 0.0], "uniform": [1.0] * 4})
    distances = pa.table({"prompt_id": known_ids[::-1], "distance": [1.0, 0.5, 1.0, 0.0]})
    output, _ = Select(name="select", fraction=1.0, novelty_weight=2.0).transform(table, distances)
    expected = dict(zip(known_ids, np.array([1.0, 3.0, 1.0, 0.0]) / 5, strict=True))
    assert dict(zip(output["prompt_id"].to_pylist(), output["probability"].to_pylist(), strict=True)) == pytest.approx(expected)


def test_rare_topics_gain_by_the_share_of_the_inverse_frequency() -> None:
    weights, topics = np.array([2.0, 1.0, 1.0, 0.0]), pa.array(["code", "code", None, "code"])
    assert topic_balanced(weights, topics, 0.0) == pytest.approx([0.5, 0.25, 0.25, 0])
    assert topic_balanced(weights, topics, 1.0) == pytest.approx([1 / 6, 1 / 6, 1 / 2, 1 / 6])
    assert topic_balanced(weights, topics, 0.25) == pytest.approx(0.75 * np.array([0.5, 0.25, 0.25, 0]) + 0.25 * np.array([1, 1, 3, 1]) / 6)


def test_selection_finds_each_prompt_s_topic_by_its_id() -> None:
    known_ids = ids(8)
    table = pa.table({"prompt_id": known_ids, "weight": [1.0] * 7 + [0.0], "uniform": pa.array([None] + [1.0] * 7)})
    topics = pa.table({"prompt_id": known_ids[::-1], "topic": ["rare"] + ["common"] * 7})
    output, _ = Select(name="select", kind="greedy", fraction=0.25, topic_share=1.0).transform(table, topics)
    assert output["prompt_id"].to_pylist()[0] == known_ids[7] and output["probability"].to_pylist()[0] == pytest.approx(0.5)
