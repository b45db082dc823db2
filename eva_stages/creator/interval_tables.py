"""The tables of an interval of online training in the schemas of offline runs, so that what shows a run shows an online run too.

Training writes a journal. `uses`, `select` and `evolve` are its rows, the other tables are projections of `uses` and `evolve`. A prompt
that was used several times in an interval has one row in a projection, that of its last use.
"""

from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from eva_stages.core.distil import TableStep
from eva_stages.core.errors import DataError
from eva_stages.core.ourfiles import parquet_errors
from eva_stages.core.rows import SCHEMAS
from eva_stages.core.runner import Context
from eva_stages.core.tables import Rows, first_places, take, write_rows
from eva_stages.creator.gate_questions import NO_VERDICT, TESTS
from eva_stages.creator.online_journal import FATE_GATE, FATE_INSERTED, FATE_REJECTED, JOURNAL, SCHEMA_OF, journal_files

FAILURES = {"uses": "failures", "evolutions": "failure"}
"""Columns with the reasons for missing results."""


def journal_rows(context: Context, table: str) -> dict[str, Any]:
    """Write a table of the journal of the stage's input `training` as one file, in the order of the steps."""
    schema, column = SCHEMAS[SCHEMA_OF[table]], FAILURES.get(table)
    reasons: Counter[str] = Counter()

    def tables() -> Iterator[pa.Table]:
        yield schema.empty_table()
        for rows in journal(context.inputs["training"], table):
            if column is not None:
                reasons.update(_texts(rows[column].combine_chunks()))
            yield rows

    return {"counts": {table: write_rows(tables(), schema, context.artifact)}, "failures": dict(reasons.most_common())}


def last_draws(context: Context) -> dict[str, Any]:
    """Write the last draw of each prompt that was drawn to be evolved, from the journal of the input `training`."""
    schema = SCHEMAS[SCHEMA_OF["selections"]]
    draws = pa.concat_tables([schema.empty_table(), *journal(context.inputs["training"], "selections")]).combine_chunks()
    last_rows = draws.take(pa.array(last_places(draws["prompt_id"].combine_chunks())))
    write_rows([last_rows], schema, context.artifact)
    return {"counts": {"draws": len(draws), "drawn_again": len(draws) - len(last_rows)}}


def journal(training: Path, table: str) -> Iterator[pa.Table]:
    """A table of the journal of an interval, one file at a time; nothing if it has no rows."""
    schema = SCHEMAS[SCHEMA_OF[table]]
    for _, path in journal_files(training / JOURNAL, table):
        with parquet_errors(path):
            yield pq.read_table(path).select(schema.names).cast(schema)


def _texts(column: pa.Array) -> list[str]:
    values = column.flatten() if pa.types.is_list(column.type) else column
    return [str(text) for text in values.drop_null().to_pylist()]


def last_places(ids: pa.Array) -> np.ndarray:
    """Row numbers of the last occurrence of each id, ascending."""
    return np.sort(len(ids) - 1 - first_places(ids[::-1])) if len(ids) else np.zeros(0, dtype=np.int64)


class LastResponses(TableStep):
    """The responses to each prompt at its last use. Input: the uses.

    Output columns:
        - those of the schema `responses`; the ids of their tokens are not recorded
    """

    reads = SCHEMAS["uses"].names
    writes = SCHEMAS["responses"].names

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        (uses,) = sources
        places = last_places(uses["prompt_id"])
        for table in uses.take(places, ["step", "prompt_id", "responses", "finish_reasons", "token_counts"]):
            columns = {name: table[name] for name in ("prompt_id", "responses", "finish_reasons", "token_counts")}
            columns["response_ids"] = pa.array(
                [[None] * len(texts) for texts in table["responses"].to_pylist()], pa.list_(pa.list_(pa.int32()))
            )
            columns["generator"] = pa.array([f"policy in training, step {step}" for step in table["step"].to_pylist()], pa.string())
            columns["seed"] = pa.nulls(len(table), pa.int64())
            yield pa.table(columns).cast(SCHEMAS["responses"])
        return {"earlier_uses": len(uses) - len(places)}


class LastRewards(TableStep):
    """The rewards of each prompt's responses at its last use. Input: the uses.

    Output columns:
        - those of the schema `rewards`
    """

    reads = ["prompt_id", "rewards", "failures"]
    writes = SCHEMAS["rewards"].names

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        (uses,) = sources
        unscored_count = 0
        for table in uses.take(last_places(uses["prompt_id"]), self.reads):
            unscored_count += table["rewards"].combine_chunks().flatten().null_count
            yield table.cast(SCHEMAS["rewards"])
        return {"unscored": unscored_count}


class IntervalPrompts(TableStep):
    """The prompts that an interval trained on, in the order of their first use: its prompt set. Inputs: the uses; then prompts, among which
    all of these are: sets of original prompts, and evolutions.

    Output columns:
        - the columns of a prompt row, origin (evolved; buffer: an original prompt that was only drawn from the buffer; original)
    """

    reads = [*SCHEMAS["prompts"].names, "origin"]
    writes = SCHEMAS["mixed"].names

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        uses, *sets = sources
        used_ids = uses["prompt_id"]
        ids = used_ids.take(pa.array(first_places(used_ids)))
        places = pc.index_in(ids, value_set=pa.concat_arrays([rows["prompt_id"] for rows in sets]))
        if places.null_count:
            missing = ids.filter(pc.is_null(places))[0].as_py()
            raise DataError(f"prompt {missing}, which was trained on, is neither among the original prompts nor among the evolutions")
        original_ids = used_ids.filter(pc.not_equal(uses["origin"], "buffer"))
        counts: Counter[str] = Counter({"evolved": 0, "buffer": 0, "original": 0})
        for table in take(sets, places.to_numpy(), SCHEMAS["prompts"].names):
            is_drawn = pc.is_in(table["prompt_id"], value_set=original_ids)
            origins = pc.if_else(pc.is_valid(table["parent_id"]), "evolved", pc.if_else(is_drawn, "original", "buffer"))
            counts.update(origins.to_pylist())
            yield table.append_column("origin", origins).cast(SCHEMAS["mixed"])
        return {**counts, "earlier_uses": len(used_ids) - len(ids)}


class CuratedEvolutions(TableStep):
    """The evolutions of an interval that passed curation, as far as they arrived in time. Input: the evolutions with their fates.

    Output columns:
        - the columns of a prompt row
    """

    reads = SCHEMAS["online_evolutions"].names
    writes = SCHEMAS["prompts"].names

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        (evolutions,) = sources
        fates = evolutions["fate"]
        is_curated = pc.or_(pc.equal(fates, FATE_INSERTED), pc.starts_with(fates, FATE_GATE))
        yield from _prompts_at(evolutions, is_curated)
        reasons = [fate.removeprefix(FATE_REJECTED) for fate in fates.filter(pc.invert(is_curated)).to_pylist()]
        return {"evolved": len(fates), "kept": int(pc.sum(is_curated).as_py() or 0), **_sorted_counts(reasons)}


class GateReasons(TableStep):
    """The gate's verdicts on the evolutions that passed curation. Input: the evolutions with their fates.

    Output columns:
        - those of the schema `gate_verdicts`; of the tests only the one that a prompt failed is known
    """

    reads = SCHEMAS["online_evolutions"].names
    writes = SCHEMAS["gate_verdicts"].names

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        (evolutions,) = sources
        schema = SCHEMAS["gate_verdicts"]
        rows = [
            _verdict_row(prompt_id, fate, schema)
            for prompt_id, fate in zip(evolutions["prompt_id"].to_pylist(), evolutions["fate"].to_pylist(), strict=True)
            if fate == FATE_INSERTED or fate.startswith(FATE_GATE)
        ]
        yield pa.Table.from_pylist(rows, schema=schema)
        return {"prompts": len(rows)}


class GatedEvolutions(TableStep):
    """The evolutions that entered the buffer. Input: the evolutions with their fates.

    Output columns:
        - the columns of a prompt row
    """

    reads = SCHEMAS["online_evolutions"].names
    writes = SCHEMAS["prompts"].names

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        (evolutions,) = sources
        fates = evolutions["fate"]
        is_inserted = pc.equal(fates, FATE_INSERTED)
        yield from _prompts_at(evolutions, is_inserted)
        reasons = [fate.removeprefix(FATE_GATE) for fate in fates.to_pylist() if fate.startswith(FATE_GATE)]
        passed_count = int(pc.sum(is_inserted).as_py() or 0)
        return {"prompts": passed_count + len(reasons), "passed": passed_count, **_sorted_counts(reasons)}


def _prompts_at(evolutions: Rows, is_taken: pa.Array) -> Iterator[pa.Table]:
    for table in evolutions.take(np.flatnonzero(is_taken), SCHEMAS["prompts"].names):
        yield table.cast(SCHEMAS["prompts"])


def _sorted_counts(reasons: list[str]) -> dict[str, int]:
    return dict(sorted(Counter(reasons).items()))


def _verdict_row(prompt_id: str, fate: str, schema: pa.Schema) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(schema.names) | {"prompt_id": prompt_id}
    if fate == FATE_INSERTED:
        return row | {"valid": True}
    reason = fate.removeprefix(FATE_GATE)
    if reason == NO_VERDICT:
        return row | {"reason": reason}
    test = next((test for test in TESTS if reason.startswith(test)), None)
    return row | {"valid": False, "reason": reason} | ({test: False} if test else {})
