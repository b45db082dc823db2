"""The archive against a dictionary of cells, and the draw of parents against drawing one by one."""

import numpy as np
import pyarrow as pa
import pytest

from eva_stages.core.errors import DataError
from eva_stages.core.rows import SCHEMAS, prompt_row
from eva_stages.creator.archive import ArchivedPrompts, SelectFromArchive, UpdateArchive, cell_probabilities, draw_parents, ranks
from eva_stages.lettercraft.language import OPERATION_NAMES, Instruction
from tests.creator.test_diversity import prompts


def instructions(count: int, seed: int) -> pa.Table:
    """Different prompts of Lettercraft with one to three operations, drawn from a small number so that sets overlap."""
    rng = np.random.default_rng(seed)
    chains = [tuple(OPERATION_NAMES[(number * 7 + depth) % 4] for depth in range(1 + number % 3)) for number in range(40)]
    return prompts(
        *(
            str(Instruction("cab", chains[number]) if number < 12 else Instruction("dab" + "e" * number, chains[number]))
            for number in rng.permutation(40)[:count]
        )
    )


def scored_table(table: pa.Table, seed: int) -> pa.Table:
    """Random weights; some prompts are not scored."""
    rng = np.random.default_rng(seed)
    uniform = np.where(rng.random(len(table)) < 0.15, None, 1.0)
    weights = [0.0 if flag is None else weight for flag, weight in zip(uniform, rng.random(len(table)), strict=True)]
    return pa.table({"prompt_id": table["prompt_id"], "weight": weights, "uniform": pa.array(uniform, pa.float64())})


def chain_of_archives(count: int) -> tuple[list[pa.Table], list[tuple[pa.Table, pa.Table]]]:
    archives, inputs = list[pa.Table](), list[tuple[pa.Table, pa.Table]]()
    for iteration in range(1, count + 1):
        table = instructions(20, iteration)
        inputs.append((table, scored_table(table, iteration)))
        step = UpdateArchive(name="archive", cell="lettercraft", iteration=iteration)
        archives.append(step.transform(*inputs[-1], *archives[-1:])[0])
    return archives, inputs


def test_the_archive_has_the_last_value_of_every_scored_prompt_and_its_rank_in_its_cell() -> None:
    archives, inputs = chain_of_archives(4)
    expected: dict[str, tuple[str, float, int]] = {}
    for iteration, (table, info) in enumerate(inputs, 1):
        for row, info_row in zip(table.to_pylist(), info.to_pylist(), strict=True):
            operations = row["messages"][0]["content"].removesuffix(".").split(", ", 1)[1].split(", then ")
            if info_row["uniform"] is not None:
                expected[row["prompt_id"]] = f"{operations[-1]}, depth {len(operations)}", info_row["weight"], iteration
    rows = archives[-1].to_pylist()
    assert {row["prompt_id"]: (row["cell"], row["value"], row["iteration"]) for row in rows} == expected
    for row in rows:
        assert row["rank"] == sum(cell == row["cell"] and value > row["value"] for cell, value, _ in expected.values())
    best_rows = [row for row in rows if row["rank"] == 0]
    assert len(best_rows) == len({cell for cell, _, _ in expected.values()}) > 3


def test_an_archive_computed_again_after_a_kill_equals_the_unbroken_one() -> None:
    archives, inputs = chain_of_archives(3)
    step = UpdateArchive(name="archive", cell="lettercraft", iteration=3)
    assert step.transform(*inputs[2], archives[1])[0].equals(archives[2])
    shuffled_inputs = [table.take(pa.array(np.random.default_rng(0).permutation(len(table)))) for table in inputs[2]]
    shuffled_archive, _ = step.transform(*shuffled_inputs, archives[1].take(pa.array(np.arange(len(archives[1]))[::-1])))
    columns = [("prompt_id", "ascending")]
    assert shuffled_archive.sort_by(columns).equals(archives[2].sort_by(columns))


def test_novelty_raises_the_values_and_a_prompt_without_labels_has_no_cell() -> None:
    table = prompts("a", "b", "c", "d")
    ids = table["prompt_id"]
    info = pa.table({"prompt_id": ids, "weight": [1.0, 0.5, 0.25, 0.0], "uniform": pa.array([1.0, 1.0, 1.0, None])})
    distances = pa.table({"prompt_id": ids, "distance": [0.0, 0.5, 1.0, 1.0]}).take([3, 2, 1, 0])
    topics = pa.table({"prompt_id": ids, "topic": ["code", "code", None, "code"]})
    scores = pa.table({"prompt_id": ids, "complexity": [2.6, 3.4, 1.0, 1.0]})
    archive, counts = UpdateArchive(name="archive", novelty_weight=2.0).transform(table, info, distances, topics, scores)
    assert archive["cell"].to_pylist() == ["code, complexity 3"] * 2 and archive["value"].to_pylist() == [1.0, 1.0]
    assert counts == {"cells": 1, "unscored": 1, "no_cell": 1}
    later_archive, _ = UpdateArchive(name="archive", cell="lettercraft", iteration=2).transform(
        instructions(4, 0), scored_table(instructions(4, 0), 0), archive
    )
    assert later_archive["value"].to_pylist()[-2:] == [1.0, 0.5], "a prompt of an earlier set is no longer new"
    with pytest.raises(DataError, match="need the prompts' topics and complexity"):
        UpdateArchive(name="archive").transform(table, info)


def test_parents_are_drawn_as_one_by_one_from_cells_by_softmax() -> None:
    cells, values = np.array([0, 0, 1, 1, 1, 2]), np.array([0.9, 0.3, 0.5, 0.8, 0.1, 0.5])
    prompt_ranks = ranks(cells, values, np.zeros(6))
    assert prompt_ranks.tolist() == [0, 1, 1, 0, 2, 0]
    powers = np.exp(np.array([1.0, 0.75, 0.0]) / 0.2)
    probabilities = cell_probabilities(np.array([0.9, 0.8, 0.5]), 0.2)
    assert probabilities == pytest.approx(powers / powers.sum())
    p = np.array([0.5, 0.3, 0.2])
    rng = np.random.default_rng(0)
    drawn_places = np.array([draw_parents(cells, prompt_ranks, p, rng.random(6), 6) for _ in range(20_000)])
    orders = np.array([cells[places] for places in drawn_places])
    assert all(places[cells[places] == 1].tolist() == [3, 2, 4] for places in drawn_places[:50])
    assert np.bincount(orders[:, 0]) / 20_000 == pytest.approx(p, abs=0.015)
    third = orders[(orders[:, 0] == 0) & (orders[:, 1] == 0), 2]  # cell 0 has no prompt left
    assert np.bincount(third, minlength=3) / len(third) == pytest.approx([0, 0.6, 0.4], abs=0.03)


def test_an_unlikely_cell_does_not_blur_the_draws_from_likely_ones() -> None:
    cells = np.array([0, 1, 1, 2, 2])
    probabilities = cell_probabilities(np.array([0.0, 0.8, 1.0]), 0.01)
    prompt_ranks = np.array([0, 0, 1, 0, 1])
    rng = np.random.default_rng(0)
    drawn_places = {tuple(draw_parents(cells, prompt_ranks, probabilities, rng.random(5), 5)) for _ in range(200)}
    assert drawn_places == {(3, 4, 1, 2, 0)}


def test_a_selection_takes_its_share_of_the_set_from_all_sets_and_their_rows() -> None:
    archives, inputs = chain_of_archives(3)
    sets = [table for table, _ in inputs]
    selected, counts = SelectFromArchive(name="select", fraction=0.5, seed=3).transform(archives[-1], sets[-1])
    ids = selected["prompt_id"].to_pylist()
    assert len(set(ids)) == 10 and selected["draw"].to_pylist() == list(range(10))
    assert counts["from_earlier_sets"] == len(set(ids) - set(sets[-1]["prompt_id"].to_pylist())) > 0
    rows, _ = ArchivedPrompts(name="archived").transform(selected, *sets[::-1])
    assert rows["prompt_id"].to_pylist() == ids and rows.schema == SCHEMAS["prompts"]
    every_row = {row["prompt_id"]: row for table in sets for row in table.to_pylist()}
    assert rows.to_pylist() == [every_row[prompt_id] for prompt_id in ids]
    stranger = prompt_row([{"role": "user", "content": "x"}], "test")
    with pytest.raises(DataError, match="1 of 1 selected prompts are in no prompt set"):
        ArchivedPrompts(name="archived").transform(pa.table({"prompt_id": [stranger["prompt_id"]]}), *sets)
