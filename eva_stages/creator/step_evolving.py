"""Evolving within training: from the prompts that a step drew to their evolutions, by the steps of an offline iteration.

The steps evolve, curate and judge as their stages do, in the same order: evolver, evaluation sets, filters, duplicates, the policy's
length, gate. Every evolution gets a fate; those without one may enter the buffer.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from eva_stages.core.failures import REASON
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.generating import COSTS
from eva_stages.core.named_functions import FunctionCode
from eva_stages.core.parts import FAILED_CALLS, STATISTICS, add_statistics
from eva_stages.core.redaction import redact_rows
from eva_stages.core.rows import MESSAGES_OF_ERRORS, SCHEMAS, Message, last_user_text
from eva_stages.core.tables import BATCH
from eva_stages.creator.contamination import QuestionIndex, best_match, read_questions
from eva_stages.creator.context import Critique, Feedback
from eva_stages.creator.evolving import EvolvePrompts
from eva_stages.creator.function_calls import Filter, filter_reason
from eva_stages.creator.function_evolver import EvolveByFunction
from eva_stages.creator.gate import JudgeValidity
from eva_stages.creator.online_journal import FATE_DUPLICATE, FATE_GATE, FATE_REJECTED
from eva_stages.creator.seen_prompts import FILE as SEEN_FILE
from eva_stages.creator.seen_prompts import SeenPrompts

Row = dict[str, Any]
TOO_LONG = "exceeds_max_length"
"""Reason of an evolution that leaves no room for a response."""


class StepEvolving:
    """Evolves the prompts of one step after another. Its methods are called in one thread.

    Args:
        evolver: `EvolvePrompts` or `EvolveByFunction`.
        seed: from the recipe; each step's own seed derives from it.
        near_duplicate, filters: as those of `Curate`; duplicates of everything that this training has seen go.
        decontaminate: as the attributes of `Contamination`; None = no evaluation sets.
        has_feedback: whether the evolver is shown the best and the worst response.
        critique: what it is shown about them.
        gate: the tests of the gate; None = no gate.
    """

    def __init__(
        self,
        evolver: EvolvePrompts | EvolveByFunction,
        seed: int,
        near_duplicate: float | None,
        filters: Sequence[FunctionCode] = (),
        decontaminate: Mapping[str, Any] | None = None,
        has_feedback: bool = False,
        critique: Critique | None = None,
        gate: JudgeValidity | None = None,
    ) -> None:
        self._evolver, self._critique, self._gate, self._seed = evolver, critique, gate, seed
        self._has_feedback, self._filter_codes, self._decontaminate = has_feedback, filters, decontaminate
        self._seen_prompts = SeenPrompts(near_duplicate)
        self._filters: list[Filter] = []
        self._questions: QuestionIndex | None = None

    def begin(self, prompt_sets: Sequence[pa.Table], state: Path | None) -> None:
        """Begin with these prompts, or continue with what `save` has written to a folder."""
        if state is not None and (state / SEEN_FILE).is_file():
            self._seen_prompts.read(state)
            return
        for table in prompt_sets:
            for batch in table.select(["prompt_id", "messages"]).to_batches(BATCH):
                self._seen_prompts.add(batch.to_pylist())

    def save(self, folder: Path) -> None:
        """Save what has been seen; nothing is evolving."""
        self._seen_prompts.save(folder)

    def load(self) -> None:
        for step in (self._evolver, self._critique, self._gate):
            if step is not None:
                step.load()
        self._filters = [code.load() for code in self._filter_codes]
        if self._decontaminate is not None:
            questions = {name: read_questions(Path(file)) for name, file in self._decontaminate["benchmarks"].items()}
            self._questions = QuestionIndex(questions, self._decontaminate["ngram"], self._decontaminate["overlap"])

    def unload(self) -> None:
        for step in (self._evolver, self._critique, self._gate):
            if step is not None:
                step.unload()

    def evolve(self, step: int, parents: Sequence[Row], fits: Callable[[Sequence[Message]], bool]) -> list[Row]:
        """The evolutions of the prompts that a step drew, with their `fate`; None = it may enter the buffer.

        Args:
            parents: rows of prompts, with `score`, which evolutions take over, and with `responses` and `rewards`.
            fits: whether a prompt leaves the policy room for a response.
        """
        self._evolver.seed = derive_seed(self._seed, "evolve", step)
        inputs = [{name: row[name] for name in SCHEMAS["prompts"].names} for row in parents]
        if self._has_feedback:
            for row, feedback in zip(inputs, self._feedback(step, parents), strict=True):
                row |= feedback
        evolutions = redact_rows(next(self._evolver.process(inputs)), MESSAGES_OF_ERRORS)
        scores = {row["prompt_id"]: row["score"] for row in parents}
        for row in evolutions:
            row["fate"], row["score"] = self._rejection(row), scores[row["parent_id"]]
        for place, row in enumerate(inputs):
            add_statistics(evolutions[place * len(evolutions) // len(inputs)], **row.get(STATISTICS, {}))
        self._curate(evolutions, fits)
        self._judge(step, evolutions, {row["prompt_id"]: row["messages"] for row in parents})
        return evolutions

    def _feedback(self, step: int, parents: Sequence[Row]) -> list[Row]:
        """Best and worst response of every parent, and the critique."""
        ids = pa.table({"prompt_id": [row["prompt_id"] for row in parents]})
        columns = [("prompts", ("prompt_id", "messages")), ("responses", ("prompt_id", "responses")), ("rewards", ("prompt_id", "rewards"))]
        tables = [
            pa.Table.from_pylist(
                [{name: row[name] for name in names} for row in parents], schema=pa.schema([SCHEMAS[kind].field(name) for name in names])
            )
            for kind, names in columns
        ]
        feedback, _ = Feedback(name="feedback").transform(ids, *tables)
        rows: list[Row] = feedback.drop_columns(["prompt_id", "messages"]).to_pylist()
        if self._critique is not None:
            self._critique.seed = derive_seed(self._seed, "critique", step)
            for row, critique in zip(rows, next(self._critique.process(feedback.to_pylist())), strict=True):
                row |= {"critique": critique["critique"], STATISTICS: _of_role("critic", critique)}
        return rows

    def _rejection(self, row: Row) -> str | None:
        """The fate of an evolution that cannot be used; None for all others."""
        if row["rejected"] is not None:
            return FAILED_CALLS if row["failure"] is not None else FATE_REJECTED + row["rejected"]
        if self._questions is not None and best_match(self._questions, row["messages"]) is not None:
            return f"{FATE_REJECTED}contaminated"
        text = last_user_text(row["messages"])
        reason = next((reason for function in self._filters if (reason := filter_reason(function, text))), None)
        return None if reason is None else FATE_REJECTED + reason

    def _curate(self, evolutions: Sequence[Row], fits: Callable[[Sequence[Message]], bool]) -> None:
        usable = [row for row in evolutions if row["fate"] is None]
        for row, reason in zip(usable, self._seen_prompts.duplicates(usable), strict=True):
            if reason is not None:
                row["fate"] = reason if reason == FATE_DUPLICATE else FATE_REJECTED + reason
            elif not fits(row["messages"]):
                row["fate"] = FATE_REJECTED + TOO_LONG

    def _judge(self, step: int, evolutions: Sequence[Row], parents: Mapping[str, Sequence[Message]]) -> None:
        usable = [row for row in evolutions if row["fate"] is None]
        if self._gate is None or not usable:
            return
        self._gate.seed = derive_seed(self._seed, "gate", step)
        inputs = [
            {**{name: row[name] for name in ("prompt_id", "messages", "reference")}, "parent_messages": parents[row["parent_id"]]}
            for row in usable
        ]
        for row, verdict in zip(usable, next(self._gate.process(inputs)), strict=True):
            add_statistics(row, **_of_role("gate", verdict))
            if not verdict["valid"]:
                row["fate"], row["failure"] = FATE_GATE + verdict["reason"], verdict["failure"]


def _of_role(role: str, row: Row) -> dict[str, float]:
    """The statistics of a critic's or judge's row, apart from those of the evolver; costs and reasons are those of all roles."""
    statistics: dict[str, float] = row.get(STATISTICS) or {}
    return {name if name in COSTS[1:] or name.startswith(REASON) else f"{role}_{name}": value for name, value in statistics.items()}
