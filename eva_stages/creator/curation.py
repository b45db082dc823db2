"""What of the evolved prompts is fit to train on: no rejects, no duplicate, no near duplicate of anything seen before."""

import tempfile
from collections import Counter
from collections.abc import Generator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eva_stages.core.distil import TableStep
from eva_stages.core.errors import DataError
from eva_stages.core.named_functions import FunctionCode
from eva_stages.core.rows import SCHEMAS, Message, last_user_text, normalise
from eva_stages.core.tables import Rows, first_places, take
from eva_stages.creator.function_calls import filter_reason
from eva_stages.creator.sketching import PERMUTATIONS, first_of_their_kind, sketches
from eva_stages.models.task_families import read_task


def prompt_text(messages: Sequence[Message]) -> str:
    """All turns joined, for the comparison of prompts."""
    return normalise("\n".join(message["content"] for message in messages))


class Curate(TableStep):
    """Keeps evolved prompts that pass the filters and are new. Inputs: the evolutions, then the earlier prompt sets.

    Attributes:
        filters: functions in files, applied to the last user message in their order; the first reason counts.
    Input columns:
        - the columns of a prompt row; rejected (first input only)
    Output columns:
        - the columns of a prompt row
    Categories:
        - filtering
    """

    near_duplicate: float | None = 0.8
    filters: Sequence[FunctionCode] = ()

    reads = {**dict.fromkeys(SCHEMAS["evolutions"].names, True), "failure": False}
    writes = SCHEMAS["prompts"].names

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        evolutions, *earlier = sources
        counts = Counter({str(reason): 0 for reason in ("duplicate", "near_duplicate")})
        reasons = evolutions["rejected"]
        counts.update({str(entry["values"]): entry["counts"] for entry in reasons.drop_null().value_counts().to_pylist()})
        usable = passing_places(evolutions, np.flatnonzero(reasons.is_null()), self.filters, counts)
        earlier_ids = [rows["prompt_id"] for rows in earlier]
        earlier_count = sum(map(len, earlier_ids))
        order = np.concatenate([np.arange(earlier_count), earlier_count + usable])
        ids = pa.concat_arrays([*earlier_ids, evolutions["prompt_id"].take(pa.array(usable))])
        distinct = first_places(ids)
        new = distinct[distinct >= earlier_count]
        duplicates = np.setdiff1d(np.arange(earlier_count, len(order)), new)
        conflicts = _reference_conflicts([*earlier, evolutions], order, ids, distinct, duplicates)
        counts["duplicate"] += len(duplicates) - conflicts
        if conflicts:
            counts["reference_conflict"] = conflicts
        if self.near_duplicate is not None:
            is_new = _first_of_their_kind([*earlier, evolutions], order[distinct], self.near_duplicate)[distinct >= earlier_count]
            counts["near_duplicate"] += len(new) - int(is_new.sum())
            new = new[is_new]
        for table in evolutions.take(usable[new - earlier_count], SCHEMAS["prompts"].names):
            yield table.cast(SCHEMAS["prompts"])
        return {"evolved": len(evolutions), "kept": len(new), **counts}


def passing_places(evolutions: Rows, places: np.ndarray, filters: Sequence[FunctionCode], counts: Counter[str]) -> np.ndarray:
    """The places of the prompts that pass all filters; `counts` takes the reasons of the rest."""
    if not filters:
        return places
    functions, passing = [code.load() for code in filters], list[bool]()
    for table in evolutions.take(places, ["messages"]):
        for messages in table["messages"].to_pylist():
            text = last_user_text(messages)
            reason = next((reason for function in functions if (reason := filter_reason(function, text))), None)
            passing.append(reason is None)
            counts.update([reason] if reason else [])
    return places[np.array(passing, dtype=bool)]


def _reference_conflicts(sources: Sequence[Rows], order: np.ndarray, ids: pa.Array, distinct: np.ndarray, duplicates: np.ndarray) -> int:
    """How many duplicates have another reference than the prompt that is kept: one of the two is wrong, or only written differently.

    Args:
        order: places of prompts in the sources.
        ids: of the prompts at `order`.
        distinct, duplicates: indices into `order`, of the first prompts of each id and of duplicates.
    """
    if not len(duplicates):
        return 0
    firsts = distinct[pc.index_in(ids.take(pa.array(duplicates)), value_set=ids.take(pa.array(distinct))).to_numpy()]
    answers = ([_answer(reference) for reference in _references(sources, order[places])] for places in (duplicates, firsts))
    return sum(None not in pair and pair[0] != pair[1] for pair in zip(*answers, strict=True))


def _references(sources: Sequence[Rows], places: np.ndarray) -> list[str | None]:
    return [reference for table in take(sources, places, ["reference"]) for reference in table["reference"].to_pylist()]


def _answer(reference: str | None) -> str | None:
    """What a reference says: the answer of a reasoning-gym task, whose other fields may differ, or the text."""
    try:
        return read_task(reference).answer
    except DataError:
        return reference


def _first_of_their_kind(sources: Sequence[Rows], places: np.ndarray, threshold: float) -> np.ndarray:
    """Whether each prompt at `places` is no near duplicate of a prompt before it. The sketches are in a temporary file."""
    with tempfile.TemporaryFile(dir=sources[0].scratch) as file:
        if not len(places):
            return np.zeros(0, dtype=bool)
        all_sketches = np.memmap(file, dtype=np.uint32, mode="w+", shape=(len(places), PERMUTATIONS))
        row = 0
        for table in take(sources, places, ["messages"]):
            all_sketches[row : row + len(table)] = sketches([prompt_text(messages) for messages in table["messages"].to_pylist()])
            row += len(table)
        return first_of_their_kind(all_sketches, threshold)
