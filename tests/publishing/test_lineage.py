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
from eva_stages.views.lookup import Rows
from eva_stages.views.nearest import edit_distances
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
    drawn = rows(tiny_run, "1-select").to_pylist()[0]
    (step,) = lineage.trace(drawn["prompt_id"])["lineage"]
    answers = {(one["stage"], one["iteration"]): one for one in step["answers"]}
    for responding, rewarding in (("0-respond", "0-reward"), ("1-creator-respond", "1-creator-reward")):
        texts, scored = (
            next(row for row in rows(tiny_run, label).to_pylist() if row["prompt_id"] == drawn["prompt_id"])
            for label in (responding, rewarding)
        )
        iteration, _, stage = responding.partition("-")
        told = answers[stage, int(iteration)]
        assert [one["text"] for one in told["responses"]] == texts["responses"]
        assert [one["reward"] for one in told["responses"]] == scored["rewards"]
        assert told["gap"] == pytest.approx(max(scored["rewards"]) - min(scored["rewards"]))
    (informed,) = step["informativeness"]
    assert informed["selected"]
    assert informed["probability"] == drawn["probability"]
    assert informed["metrics"]["reward_gap"] == pytest.approx(answers["creator-respond", 1]["gap"])


def test_every_evolution_is_found_and_its_fate_told(tiny_run: Path, lineage: Lineage) -> None:
    mixed = set(rows(tiny_run, "1-mix")["prompt_id"].to_pylist())
    curated = set(rows(tiny_run, "1-curate")["prompt_id"].to_pylist())
    for row in rows(tiny_run, "1-evolve").to_pylist():
        steps = lineage.trace(row["prompt_id"])["lineage"]
        assert steps[0]["mutation"] is None
        fate = steps[-1]["fate"]
        if row["prompt_id"] in mixed:
            assert fate in ("in the prompt set of iteration 1", "seed prompt")
        elif row["rejected"] is None:
            assert fate == ("not drawn for the prompt set" if row["prompt_id"] in curated else "left out: a duplicate or near duplicate")


def test_the_tree_below_a_seed_holds_all_its_evolutions(tiny_run: Path, lineage: Lineage) -> None:
    evolutions = rows(tiny_run, "1-evolve")
    root = evolutions["root_id"][0].as_py()
    own = evolutions.filter(pc.equal(evolutions["root_id"], root))
    document = lineage.tree(own["prompt_id"][-1].as_py())

    def below(node: dict) -> list[str]:
        return [name for child in node["children"] for name in (child["prompt_id"], *below(child))]

    assert document["seed"] == root
    assert sorted(below(document["tree"])) == sorted(own["prompt_id"].to_pylist())
    assert document["evolutions"] == len(own)


def test_the_command_shows_steps_and_trees_and_names_the_nearest_ids(tiny_run: Path) -> None:
    prompt = rows(tiny_run, "1-mix").filter(pc.equal(rows(tiny_run, "1-mix")["origin"], "evolved"))["prompt_id"][0].as_py()
    shown = run_eva("lineage", str(tiny_run), prompt).stdout
    assert "seed, from lettercraft" in shown
    assert "checkpoint trained on it: 1-train-" in shown
    assert json.loads(run_eva("lineage", str(tiny_run), prompt, "--json").stdout)["lineage"][-1]["prompt_id"] == prompt
    assert prompt in run_eva("lineage", str(tiny_run), prompt, "--from-seed").stdout
    wrong = run_eva("lineage", str(tiny_run), prompt[:9], code=2)
    assert f"did you mean {prompt}" in wrong.stderr


def test_an_unknown_id_gets_the_one_with_the_smallest_edit_distance(tiny_run: Path, lineage: Lineage) -> None:
    known = rows(tiny_run, "1-mix")["prompt_id"][3].as_py()
    for typed in (f"{known[:10]}{known[11:]}", f"{known[:4]}z{known[5:]}", f"{known[:7]}0{known[7:]}", known.upper()):
        with pytest.raises(ConfigError, match=f"did you mean {known}"):
            lineage.trace(typed)


def test_edit_distances_are_levenshtein_s() -> None:
    words = ["kitten", "sitting", "", "kit", "ktitne", "flaw", "lawn"]
    assert edit_distances("kitten", pa.array(words)).tolist() == [0, 3, 6, 3, 3, 6, 5]
    assert edit_distances("lawn", pa.array(words)[5:]).tolist() == [2, 0]


def test_rows_are_read_from_any_row_group(tmp_path: Path) -> None:
    ids = [f"{number:024x}" for number in range(10_000)]
    table = pa.table(
        {"prompt_id": ids, "quality": np.arange(10_000.0), "complexity": np.zeros(10_000), "failure": pa.nulls(10_000, pa.string())}
    )
    write_rows([table], SCHEMAS["prompt_scores"], tmp_path)
    found = Rows(tmp_path / "rows.parquet")
    numbers = np.array([0, 255, 256, 4095, 4096, 9999])
    assert [row["quality"] for row in found.take(numbers)] == numbers.tolist()
    assert found.of(ids[8192], ["quality"]) == {"quality": 8192.0}
    assert found.of("0" * 23 + "g") is None


def test_long_chains_over_several_iterations_reach_their_seeds(tmp_path: Path) -> None:
    run = SyntheticRun(tmp_path / "made", prompts=80, responses=3, iterations=3, words=10).write()
    found = Lineage(read_history(Run(run)))
    lengths = []
    for label in ("3-mix", "3-evolve"):
        for prompt_id in rows(run, label)["prompt_id"].to_pylist()[::6]:
            document = found.trace(prompt_id)
            assert document["reaches_seed"]
            assert [step["generation"] for step in document["lineage"]] == list(range(len(document["lineage"])))
            lengths.append(len(document["lineage"]))
    assert max(lengths) > 6


def test_texts_that_evolved_into_each_other_have_an_end(tmp_path: Path) -> None:
    """Iteration 1 makes b of a and drops it, iteration 2 makes b of c and a of b: nobody is their own ancestor."""
    made = SyntheticRun(tmp_path / "made", prompts=2)
    (made.root / "stages").mkdir(parents=True)
    a, b, c = ("a" * 24, "b" * 24, "c" * 24)

    def prompts(*lines: tuple[str, str | None, str, int]) -> pa.Table:
        ids, parents, roots, generations = (list(column) for column in zip(*lines, strict=True))
        texts = pa.array(["text"] * len(ids))
        return made._prompt_rows(ids, texts, parents, roots, generations, [None if one is None else "breadth" for one in parents])

    def evolved(table: pa.Table) -> pa.Table:
        return table.append_column("rejected", pa.nulls(len(table), pa.string()))

    seeds = prompts((a, None, a, 0), (c, None, c, 0))
    made._make("prompts", 0, seeds, {})
    made._make("evolve", 1, evolved(prompts((b, a, a, 1))), {})
    made._make("mix", 1, seeds, {})
    made._make("evolve", 2, evolved(prompts((b, c, c, 1), (a, b, c, 2))), {})
    made._make("mix", 2, prompts((b, c, c, 1), (a, b, c, 2)), {})
    (made.root / "stages.json").write_text(json.dumps(made.folders))
    found = Lineage(read_history(Run(made.root)))
    assert [step["prompt_id"] for step in found.trace(b)["lineage"]] == [c, b]
    assert [step["prompt_id"] for step in found.trace(a)["lineage"]] == [a]
