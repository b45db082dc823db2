"""The gate: an evolved prompt is trained on only if it is a valid task. Cheap tests run first, and the first failed one decides.

A prompt passes only if every test says so. The verdict of a test is null where a call failed or a reply could not be read; the prompt is
then neither valid nor invalid, and is left out too.
"""

import zlib
from collections import Counter
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from distilabel.models.llms import LLM
from distilabel.steps import StepInput
from distilabel.typing import StepOutput
from pydantic import PrivateAttr

from eva_stages.core.config.function_fields import VALIDITY
from eva_stages.core.config.gate_config import BY_JUDGE
from eva_stages.core.distil import TableStep
from eva_stages.core.errors import DataError
from eva_stages.core.failures import add_calls
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.generating import ask, reply_of, totals
from eva_stages.core.named_functions import FunctionCode, load_choice
from eva_stages.core.parts import add_statistics
from eva_stages.core.pipeline_patches import LoudStep
from eva_stages.core.rows import MESSAGES, SCHEMAS, last_user_text
from eva_stages.core.tables import Rows, check_same_order, take
from eva_stages.creator.gate_questions import NO_VERDICT, NOT_AGREED, PASSES, TESTS, question, read_vote
from eva_stages.creator.validity import Validity, is_valid

PARENTS = pa.schema({"prompt_id": pa.string(), "parent_messages": MESSAGES})


def zlib_ratio(text: str) -> float:
    """Compressed bytes per byte of a text; low for repetition, above 1 for short texts."""
    content = text.encode()
    return len(zlib.compress(content, 9)) / max(1, len(content))


class GateParents(TableStep):
    """The parents of evolved prompts: prompts of the current set, or earlier evolutions of a chain.

    Input columns:
        - prompt_id, parent_id (evolved prompts); prompt_id, messages (current set); prompt_id, messages (all evolutions)
    Output columns:
        - prompt_id, parent_messages
    Categories:
        - columns
    """

    reads = ["prompt_id", "parent_id", "messages"]
    writes = PARENTS.names

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        prompts, *parents = sources
        # equal ids have equal messages, so any row of an id will do
        places = pc.index_in(prompts["parent_id"], value_set=pa.concat_arrays([rows["prompt_id"] for rows in parents]))
        if places.null_count:
            raise DataError(f"{places.null_count} of the {len(prompts)} evolved prompts have a parent that is neither a prompt nor evolved")
        first = 0
        ids = prompts["prompt_id"]
        for table in take(parents, places.to_numpy(), ["messages"]):
            yield pa.table([ids.slice(first, len(table)), table["messages"]], schema=PARENTS)
            first += len(table)
        return {}


class JudgeValidity(LoudStep):
    """The verdicts of the gate's tests on every prompt; those after a failed test, or one without a verdict, are null.

    Attributes:
        llm: the judge; None if no test asks it.
        max_length_ratio, min_zlib_ratio: null = no such test.
        answerable: `judge`, a built-in function or one in a file; null = no such test.
        relevant: whether the judge is asked for the prompt's relevance to its parent.
        seed: from the recipe, the stage and the iteration.

    Input columns:
        - prompt_id, messages, reference; parent_messages (of the tests of length and relevance)
    Output columns:
        - length_ratio, zlib_ratio (null where there is no such test); a verdict per test; valid (null where a test has no verdict)
        - reason (of the test that failed; null = valid), failure (why there is no verdict), replies (the judge's texts)
    Categories:
        - scorer
    """

    llm: LLM | None = None
    max_length_ratio: float | None = None
    min_zlib_ratio: float | None = None
    answerable: str | FunctionCode | None = None
    relevant: bool = False
    seed: int = 0
    _function: Validity | None = PrivateAttr(None)

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        if self.llm is None and (self.relevant or self.answerable == BY_JUDGE):
            raise DataError("JudgeValidity: llm is missing; the tests answerable: judge and relevant ask it")

    @property
    def inputs(self) -> list[str]:
        compares = self.relevant or self.max_length_ratio is not None
        return ["prompt_id", "messages", "reference", *(["parent_messages"] if compares else [])]

    @property
    def outputs(self) -> list[str]:
        return ["length_ratio", "zlib_ratio", *TESTS, "valid", "reason", "failure", "replies"]

    def load(self) -> None:
        super().load()
        if self.llm is not None:
            self.llm.load()
        if self.answerable not in (None, BY_JUDGE):
            self._function = load_choice(self.answerable, VALIDITY)

    def unload(self) -> None:
        if self.llm is not None:
            self.llm.unload()
        super().unload()

    def process(self, inputs: StepInput) -> StepOutput:
        for row in inputs:
            row |= {**dict.fromkeys(self.outputs), "replies": []}
            self._measure(row)
        if self._function is not None:
            for row in _open_rows(inputs):
                verdict, failure = is_valid(self._function, row["messages"], row["reference"])
                add_calls(row, failure)
                _decide(row, "answerable", verdict, failure)
        judged_tests = [*(["relevant"] if self.relevant else []), *(["answerable"] if self.answerable == BY_JUDGE else [])]
        for test in judged_tests:
            self._ask(test, _open_rows(inputs))
        for row in inputs:
            row["valid"] = None if row["failure"] is not None else row["reason"] is None
            add_statistics(row, prompts=1, **{NO_VERDICT: int(row["valid"] is None)})
        yield inputs

    def _measure(self, row: dict[str, Any]) -> None:
        """The tests that need no call."""
        text = last_user_text(row["messages"])
        if self.max_length_ratio is not None:
            row["length_ratio"] = len(text) / max(1, len(last_user_text(row["parent_messages"])))
            _decide(row, "max_length_ratio", row["length_ratio"] <= self.max_length_ratio)
        if self.min_zlib_ratio is not None:
            row["zlib_ratio"] = zlib_ratio(text)
            if row["reason"] is None:
                _decide(row, "min_zlib_ratio", row["zlib_ratio"] >= self.min_zlib_ratio)

    def _ask(self, test: str, rows: list[dict[str, Any]]) -> None:
        """Ask the judge twice about each row."""
        if not rows:
            return
        cases = [(row, turn) for row in rows for turn in range(PASSES)]
        conversations = [
            [{"role": "user", "content": question(test, turn, row["messages"], row.get("parent_messages"), row["reference"])}]
            for row, turn in cases
        ]
        outputs = ask(self.llm, conversations, [derive_seed(self.seed, row["prompt_id"], test, turn) for row, turn in cases])
        for index, row in enumerate(rows):
            votes = []
            for turn, output in enumerate(outputs[PASSES * index : PASSES * (index + 1)]):
                reply, failure = reply_of(output)
                vote, failure = (None, failure) if reply is None else read_vote(reply, turn)
                row["replies"].append(reply)
                votes.append((vote, failure))
                add_calls(row, failure)
                add_statistics(row, **totals(output["statistics"]))
            verdict, reason = agreed([vote for vote, _ in votes], test)
            _decide(row, test, verdict, next((failure for _, failure in votes if failure is not None), None), reason)


def agreed(votes: Sequence[bool | None], test: str) -> tuple[bool | None, str]:
    """The verdict of two votes, and the reason if it is no: yes if both are, no if not, null without one of them."""
    if None in votes:
        return None, NO_VERDICT
    return all(votes), test if not any(votes) else f"{test}{NOT_AGREED}"


def _open_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["reason"] is None]


def _decide(row: dict[str, Any], test: str, verdict: bool | None, failure: str | None = None, reason: str | None = None) -> None:
    """Write a verdict, with its reason unless it is yes."""
    row[test] = verdict
    if verdict is None:
        row["reason"], row["failure"] = NO_VERDICT, failure
    elif not verdict:
        row["reason"] = reason or test


class Gate(TableStep):
    """The evolved prompts that are valid. Inputs: the prompts and their verdicts, in the same order.

    Input columns:
        - the columns of a prompt row; prompt_id, valid, reason
    Output columns:
        - the columns of a prompt row
    Categories:
        - filtering
    """

    reads = [*SCHEMAS["prompts"].names, "valid", "reason"]
    writes = SCHEMAS["prompts"].names

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        prompts, verdicts = sources
        check_same_order(sources, "the evolved prompts and their verdicts")
        passing = np.flatnonzero(verdicts["valid"].fill_null(False))
        yield from prompts.take(passing)
        reasons = Counter(verdicts["reason"].drop_null().to_pylist())
        return {"prompts": len(prompts), "passed": len(passing), **dict(sorted(reasons.items()))}


class SampleGate(TableStep):
    """Random samples of the gate's verdicts: of the prompts that passed, and of those left out for what the audit tests too.

    Attributes:
        size: of each sample.
        seed: from the recipe, the stage and the iteration.

    Input columns:
        - the columns of a prompt row; prompt_id, valid, reason
    Output columns:
        - prompt_id, messages, reference; passed (whether the gate passed it), left_out_by (the gate's reason)
    Categories:
        - filtering
    """

    size: int = 50
    seed: int = 0

    reads = [*SCHEMAS["prompts"].names, "valid", "reason"]
    writes = ["prompt_id", "messages", "reference", "passed", "left_out_by"]

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        prompts, verdicts = sources
        check_same_order(sources, "the evolved prompts and their verdicts")
        valid, reasons = verdicts["valid"], verdicts["reason"]
        draws = np.array([derive_seed(self.seed, name) for name in prompts["prompt_id"].to_pylist()], dtype=np.uint64)
        valid_places = np.flatnonzero(valid.fill_null(False))
        is_irrelevant = pc.fill_null(pc.starts_with(reasons, "relevant"), False)
        invalid_places = np.flatnonzero(pc.and_(pc.invert(valid.fill_null(True)), pc.invert(is_irrelevant)))
        places = np.sort(np.concatenate([group[np.argsort(draws[group])[: self.size]] for group in (valid_places, invalid_places)]))
        first = 0
        for table in prompts.take(places, ["prompt_id", "messages", "reference"]):
            rows = pa.array(places[first : first + len(table)])
            yield table.append_column("passed", valid.take(rows)).append_column("left_out_by", reasons.take(rows))
            first += len(table)
        return {"passed": len(valid_places), "left_out": len(invalid_places)}
