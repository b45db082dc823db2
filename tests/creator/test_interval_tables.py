"""The tables of an interval of online training are projections of its journal."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from eva_stages.core.progress import Reporter
from eva_stages.core.rows import SCHEMAS, prompt_row
from eva_stages.core.runner import Context
from eva_stages.core.tables import read_table
from eva_stages.creator import interval_tables as tables


def prompt(text: str, **lineage: Any) -> dict[str, Any]:
    return prompt_row([{"role": "user", "content": text}], "test", **lineage)


SEEDS = [prompt(f"seed {index}") for index in range(3)]
FATES = ("inserted", "gate:relevant", "gate:no_verdict", "rejected:near_duplicate", "duplicate", "late", "failed", "inserted")
CHILDREN = [
    prompt(f"child {index}", parent_id=SEEDS[0]["prompt_id"], root_id=SEEDS[0]["prompt_id"], generation=1, mutation="deepen")
    for index in range(len(FATES))
]
USES = [(1, SEEDS[0], "original", 0.5), (1, SEEDS[1], "original", None), (2, CHILDREN[0], "buffer", 0.25), (3, SEEDS[0], "buffer", 1.0)]


def use_row(step: int, row: dict[str, Any], origin: str, score: float | None) -> dict[str, Any]:
    return {
        "step": step,
        "prompt_id": row["prompt_id"],
        "origin": origin,
        "responses": [f"response {step}", None],
        "finish_reasons": ["stop", "no reply"],
        "token_counts": [3, 0],
        "rewards": [score, None],
        "failures": [None, "no reply"],
        "score": score,
    }


def evolution_row(index: int) -> dict[str, Any]:
    failure = "timeout" if FATES[index] == "failed" else None
    inserted_step = 4 if FATES[index] == "inserted" else None
    return {
        **CHILDREN[index],
        "rejected": "failed" if failure else None,
        "failure": failure,
        "step": 2,
        "inserted_step": inserted_step,
        "fate": FATES[index],
    }


def write_journal(folder: Path, table: str, step: int, rows: Sequence[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMAS[tables.SCHEMA_OF[table]]), folder / f"{table}-{step}.parquet")


def planted_training(folder: Path) -> Path:
    """A training's artifact with a journal of two checkpoints, the later of which has more digits."""
    journal = folder / tables.JOURNAL
    uses = [use_row(*use) for use in USES]
    write_journal(journal, "uses", 9, uses[:2])
    write_journal(journal, "uses", 10, uses[2:])
    draws = [{"step": step, "prompt_id": SEEDS[0]["prompt_id"], "weight": 1.0, "probability": 0.5, "draw": 0} for step in (1, 3)]
    write_journal(journal, "selections", 9, draws[:1])
    write_journal(journal, "selections", 10, draws[1:])
    write_journal(journal, "evolutions", 10, [evolution_row(index) for index in range(len(FATES))])
    return folder


def context(tmp_path: Path) -> Context:
    training = planted_training(tmp_path / "model")
    with Reporter().task("test") as task:
        return Context(tmp_path, tmp_path / "data", {"training": training}, task, tmp_path)


def table_of(schema: str, rows: Sequence[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=SCHEMAS[schema])


def uses_table() -> pa.Table:
    return table_of("uses", [use_row(*use) for use in USES])


def evolutions_table() -> pa.Table:
    return table_of("online_evolutions", [evolution_row(index) for index in range(len(FATES))])


def test_the_journal_is_read_in_the_order_of_its_steps_and_missing_results_are_counted_by_reason(tmp_path: Path) -> None:
    facts = tables.journal_rows(context(tmp_path), "uses")
    assert read_table(tmp_path / "data")["step"].to_pylist() == [1, 1, 2, 3]
    assert facts == {"counts": {"uses": 4}, "failures": {"no reply": 4}}


def test_a_table_that_an_interval_has_no_rows_of_is_empty(tmp_path: Path) -> None:
    empty = context(tmp_path)
    for path in (tmp_path / "model" / tables.JOURNAL).glob("evolutions-*"):
        path.unlink()
    assert tables.journal_rows(empty, "evolutions") == {"counts": {"evolutions": 0}, "failures": {}}
    assert read_table(tmp_path / "data").schema == SCHEMAS["online_evolutions"]


def test_a_prompt_that_was_drawn_twice_has_its_last_draw(tmp_path: Path) -> None:
    facts = tables.last_draws(context(tmp_path))
    assert facts["counts"] == {"draws": 2, "drawn_again": 1}
    assert read_table(tmp_path / "data")["step"].to_pylist() == [3]


def test_a_prompt_has_the_responses_and_rewards_of_its_last_use() -> None:
    responses, counts = tables.LastResponses(name="respond").transform(uses_table())
    assert responses.schema == SCHEMAS["responses"] and counts == {"earlier_uses": 1}
    assert responses["prompt_id"].to_pylist() == [USES[index][1]["prompt_id"] for index in (1, 2, 3)]
    assert responses["generator"].to_pylist() == [f"policy in training, step {step}" for step in (1, 2, 3)]
    assert responses["response_ids"].to_pylist() == [[None, None]] * 3
    rewards, counts = tables.LastRewards(name="reward").transform(uses_table())
    assert rewards["rewards"].to_pylist() == [[None, None], [0.25, None], [1.0, None]]
    assert counts == {"unscored": 4}


def test_the_prompt_set_of_an_interval_is_what_it_trained_on() -> None:
    originals, evolved = table_of("prompts", SEEDS), table_of("prompts", CHILDREN)
    mixture, counts = tables.IntervalPrompts(name="mix").transform(uses_table(), originals, evolved)
    assert mixture.schema == SCHEMAS["mixed"]
    assert mixture["prompt_id"].to_pylist() == [row["prompt_id"] for row in (SEEDS[0], SEEDS[1], CHILDREN[0])]
    assert mixture["origin"].to_pylist() == ["original", "original", "evolved"]
    assert counts == {"evolved": 1, "buffer": 0, "original": 2, "earlier_uses": 1}
    late_uses = uses_table().slice(2)
    assert tables.IntervalPrompts(name="mix").transform(late_uses, originals, evolved)[0]["origin"].to_pylist() == ["evolved", "buffer"]


def test_every_evolution_is_kept_or_counted_with_the_reason_why_not() -> None:
    curation, counts = tables.CuratedEvolutions(name="curate").transform(evolutions_table())
    assert len(curation) == 4 and curation.schema == SCHEMAS["prompts"]
    assert counts == {"evolved": 8, "kept": 4, "duplicate": 1, "failed": 1, "late": 1, "near_duplicate": 1}
    passing_prompts, counts = tables.GatedEvolutions(name="gate").transform(evolutions_table())
    assert passing_prompts["prompt_id"].to_pylist() == [CHILDREN[index]["prompt_id"] for index in (0, 7)]
    assert counts == {"prompts": 4, "passed": 2, "no_verdict": 1, "relevant": 1}


def test_the_gates_reasons_become_verdicts_and_a_failed_call_none() -> None:
    verdicts, _ = tables.GateReasons(name="gate-verdicts").transform(evolutions_table())
    assert verdicts["valid"].to_pylist() == [True, False, None, True]
    assert verdicts["relevant"].to_pylist() == [None, False, None, None]
    assert verdicts["reason"].to_pylist() == [None, "relevant", "no_verdict", None]
