"""Lineages of the tiny run, and of made-up ones with what a small run rarely has."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from benchmarks.synthetic_run import SyntheticRun
from eva_stages.core.errors import ConfigError
from eva_stages.core.rows import SCHEMAS
from eva_stages.core.run_folder import Run
from eva_stages.core.tables import read_table, write_rows
from eva_stages.views.history import read_history
from eva_stages.views.lookup import Rows, similar_ids
from eva_stages.views.prompt_lineage import Lineage
from tests.conftest import artifact_folder, run_eva


@pytest.fixture(scope="module")
def lineage(tiny_run: Path) -> Lineage:
    return Lineage(read_history(Run(tiny_run)))


def rows(run: Path, label: str) -> pa.Table:
    return read_table(artifact_folder(run, label) / "data")


def test_the_lineage_of_every_pair_reaches_a_seed_prompt(tiny_run: Path, lineage: Lineage) -> None:
    seeds = set(rows(tiny_run, "0-prompts")["prompt_id"].to_pylist())
    evolved = 0
    for label in ("0-pair", "1-pair"):
        for prompt_id in rows(tiny_run, label)["prompt_id"].to_pylist():
            steps = lineage.trace(prompt_id)["lineage"]
            assert steps[0]["prompt_id"] in seeds
            assert steps[0]["mutation"] is None
            assert steps[-1]["prompt_id"] == prompt_id
            assert [step["generation"] for step in steps] == list(range(len(steps)))
            assert all(step["mutation"] for step in steps[1:])
            assert int(label[0]) in [pair["iteration"] for pair in steps[-1]["pairs"]]
            assert int(label[0]) in [checkpoint["iteration"] for checkpoint in steps[-1]["checkpoints"]]
            evolved += len(steps) > 1
    assert evolved > 5


def test_a_step_tells_what_the_artifacts_hold(tiny_run: Path, lineage: Lineage) -> None:
    selected_row = rows(tiny_run, "1-select").to_pylist()[0]
    (step,) = lineage.trace(selected_row["prompt_id"])["lineage"]
    answers = {(answer["stage"], answer["iteration"]): answer for answer in step["answers"]}
    for responding, rewarding in (("0-respond", "0-reward"), ("1-creator-respond", "1-creator-reward")):
        texts, score_row = (
            next(row for row in rows(tiny_run, label).to_pylist() if row["prompt_id"] == selected_row["prompt_id"])
            for label in (responding, rewarding)
        )
        iteration, _, stage = responding.partition("-")
        answer_entry = answers[stage, int(iteration)]
        assert [response["text"] for response in answer_entry["responses"]] == texts["responses"]
        assert [response["reward"] for response in answer_entry["responses"]] == score_row["rewards"]
        assert answer_entry["gap"] == pytest.approx(max(score_row["rewards"]) - min(score_row["rewards"]))
    (info_entry,) = step["informativeness"]
    assert info_entry["selected"]
    assert info_entry["probability"] == selected_row["probability"]
    assert info_entry["metrics"]["reward_gap"] == pytest.approx(answers["creator-respond", 1]["gap"])


def test_every_evolution_is_found_and_its_fate_told(tiny_run: Path, lineage: Lineage) -> None:
    mix_ids = set(rows(tiny_run, "1-mix")["prompt_id"].to_pylist())
    curate_ids = set(rows(tiny_run, "1-curate")["prompt_id"].to_pylist())
    for row in rows(tiny_run, "1-evolve").to_pylist():
        steps = lineage.trace(row["prompt_id"])["lineage"]
        assert steps[0]["mutation"] is None
        fate = steps[-1]["fate"]
        if row["prompt_id"] in mix_ids:
            assert fate in ("in the prompt set of iteration 1", "seed prompt")
        elif row["rejected"] is None:
            removal_text = "left out: filtered, or a duplicate or near duplicate"
            assert fate == ("not drawn for the prompt set" if row["prompt_id"] in curate_ids else removal_text)


def test_the_tree_below_a_seed_holds_all_its_evolutions(tiny_run: Path, lineage: Lineage) -> None:
    evolutions = rows(tiny_run, "1-evolve")
    root = evolutions["root_id"][0].as_py()
    own_rows = evolutions.filter(pc.equal(evolutions["root_id"], root))
    document = lineage.tree(own_rows["prompt_id"][-1].as_py())

    def ids_below(node: dict) -> list[str]:
        return [name for child in node["children"] for name in (child["prompt_id"], *ids_below(child))]

    assert document["seed"] == root
    assert sorted(ids_below(document["tree"])) == sorted(own_rows["prompt_id"].to_pylist())
    assert document["evolutions"] == len(own_rows)


def test_the_command_shows_steps_and_trees_and_names_the_nearest_ids(tiny_run: Path) -> None:
    prompt = rows(tiny_run, "1-mix").filter(pc.equal(rows(tiny_run, "1-mix")["origin"], "evolved"))["prompt_id"][0].as_py()
    output = run_eva("lineage", str(tiny_run), prompt).stdout
    assert "seed, from lettercraft" in output
    assert "checkpoint trained on it: 1-train-" in output
    assert json.loads(run_eva("lineage", str(tiny_run), prompt, "--json").stdout)["lineage"][-1]["prompt_id"] == prompt
    assert prompt in run_eva("lineage", str(tiny_run), prompt, "--from-seed").stdout
    wrong = run_eva("lineage", str(tiny_run), prompt[:9], code=2)
    assert f"did you mean {prompt}" in wrong.stderr


def test_an_unknown_id_gets_the_ids_with_the_same_beginning(tiny_run: Path, lineage: Lineage) -> None:
    known_id = rows(tiny_run, "1-mix")["prompt_id"][3].as_py()
    for typed_id in (
        f"{known_id[:10]}{known_id[11:]}",
        f"{known_id[:4]}z{known_id[5:]}",
        f"{known_id[:7]}0{known_id[7:]}",
        known_id.upper(),
    ):
        with pytest.raises(ConfigError, match=f"did you mean {known_id}"):
            lineage.trace(typed_id)
    with pytest.raises(ConfigError, match=r"column prompt_id of its rows, for example [0-9a-f]{24}$"):
        lineage.trace("nosuch")


def test_ids_with_the_longest_common_beginning_are_suggested() -> None:
    columns = [pa.chunked_array([["abc1", "abd2"], ["b1"]]), pa.chunked_array([["abc1"]], pa.string())]
    assert similar_ids(" ABCX", columns) == ["abc1"] and similar_ids("abx", columns) == ["abc1", "abd2"]
    assert similar_ids("zzz", columns) == similar_ids("", columns) == ["abc1", "abd2", "b1"]
    assert similar_ids("a", []) == []


def test_rows_are_read_from_any_row_group(tmp_path: Path) -> None:
    ids = [f"{number:024x}" for number in range(10_000)]
    table = pa.table(
        {"prompt_id": ids, "quality": np.arange(10_000.0), "complexity": np.zeros(10_000), "failure": pa.nulls(10_000, pa.string())}
    )
    write_rows([table], SCHEMAS["prompt_scores"], tmp_path)
    result = Rows(tmp_path / "rows.parquet")
    numbers = np.array([0, 255, 256, 4095, 4096, 9999])
    assert [row["quality"] for row in result.take(numbers)] == numbers.tolist()
    assert result.of(ids[8192], ["quality"]) == {"quality": 8192.0}
    assert result.of("0" * 23 + "g") is None


def test_long_chains_over_several_iterations_reach_their_seeds(tmp_path: Path) -> None:
    run = SyntheticRun(tmp_path / "made", prompts=80, responses=3, iterations=3, words=10).write()
    result = Lineage(read_history(Run(run)))
    lengths = []
    for label in ("3-mix", "3-evolve"):
        for prompt_id in rows(run, label)["prompt_id"].to_pylist()[::6]:
            document = result.trace(prompt_id)
            assert document["reaches_seed"]
            assert [step["generation"] for step in document["lineage"]] == list(range(len(document["lineage"])))
            lengths.append(len(document["lineage"]))
    assert max(lengths) > 6


def test_texts_that_evolved_into_each_other_have_an_end(tmp_path: Path) -> None:
    """Iteration 1 makes b of a and drops it, iteration 2 makes b of c and a of b: nobody is their own ancestor."""
    synthetic_run = SyntheticRun(tmp_path / "made", prompts=2)
    (synthetic_run.root / "stages").mkdir(parents=True)
    a, b, c = ("a" * 24, "b" * 24, "c" * 24)

    def prompts(*lines: tuple[str, str | None, str, int]) -> pa.Table:
        ids, parents, roots, generations = (list(column) for column in zip(*lines, strict=True))
        texts = pa.array(["text"] * len(ids))
        return synthetic_run._prompt_rows(
            ids, texts, parents, roots, generations, [None if parent is None else "breadth" for parent in parents]
        )

    def evolved(table: pa.Table) -> pa.Table:
        return table.append_column("rejected", pa.nulls(len(table), pa.string()))

    seeds = prompts((a, None, a, 0), (c, None, c, 0))
    synthetic_run._make("prompts", 0, seeds, {})
    synthetic_run._make("evolve", 1, evolved(prompts((b, a, a, 1))), {})
    synthetic_run._make("mix", 1, seeds, {})
    synthetic_run._make("evolve", 2, evolved(prompts((b, c, c, 1), (a, b, c, 2))), {})
    synthetic_run._make("mix", 2, prompts((b, c, c, 1), (a, b, c, 2)), {})
    (synthetic_run.root / "stages.json").write_text(json.dumps(synthetic_run.folders))
    result = Lineage(read_history(Run(synthetic_run.root)))
    assert [step["prompt_id"] for step in result.trace(b)["lineage"]] == [c, b]
    assert [step["prompt_id"] for step in result.trace(a)["lineage"]] == [a]
