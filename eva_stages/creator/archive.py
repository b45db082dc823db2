"""The archive of an iteration: every scored prompt of all sets in its cell, the most informative first (MAP-Elites, Mouret, Clune 2015).

The value of a prompt is its sampling weight w(x) when it was last scored: the metric scaled to [0, 1] over its set. With novelty the value
of a prompt that iteration t scored is w (1 + weight * distance); one from before is in an earlier set, so its distance is 0. The archive
of iteration t is that of t - 1, with new weights for the prompts that iteration t scored; a prompt that it could not score keeps its old
weight. In a cell c prompts are ranked by value, and a_c is the value of the best.

Parents are drawn one by one. A draw takes cell c with probability

    p_c = exp(v_c / T) / sum over c' of exp(v_c' / T),    v = minmax(a) over the cells,

and the k-th draw of a cell is its k-th best prompt; a cell without prompts left is drawn no more. All draws at once: cell c has arrivals
of a Poisson process with rate p_c, one per prompt in the order of their ranks, and the parents are the prompts that arrive first.
"""

from collections.abc import Generator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eva_stages.core.config.function_fields import CELL
from eva_stages.core.distil import TableStep
from eva_stages.core.errors import DataError
from eva_stages.core.fingerprint import uniforms
from eva_stages.core.named_functions import FunctionCode, load_choice
from eva_stages.core.rows import SCHEMAS
from eva_stages.core.tables import Rows, check_same_order, first_places, take
from eva_stages.creator.cells import topic_complexity
from eva_stages.creator.function_calls import cell_name
from eva_stages.creator.informativeness import min_max
from eva_stages.creator.selection import novel_weights

BY_LABELS = "topic_complexity"


def ranks(cells: np.ndarray, values: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """The rank of each prompt in its cell, 0 for the highest value; ties by `ties`, ascending."""
    order = np.lexsort((ties, -values, cells))
    sorted_cells = cells[order]
    first = np.flatnonzero(np.diff(sorted_cells, prepend=-1))
    places = np.empty(len(cells), dtype=np.int64)
    places[order] = np.arange(len(cells)) - np.repeat(first, np.diff(first, append=len(cells)))
    return places


def cell_probabilities(best_values: np.ndarray, temperature: float) -> np.ndarray:
    """Softmax of the cells' values, scaled to [0, 1], over the temperature."""
    scaled_values = min_max(best_values) / temperature
    powers = np.exp(scaled_values - scaled_values.max())
    return np.asarray(powers / powers.sum())


def draw_parents(cells: np.ndarray, prompt_ranks: np.ndarray, probabilities: np.ndarray, draws: np.ndarray, size: int) -> np.ndarray:
    """The places of the prompts that are drawn, in the order drawn.

    Args:
        cells: the cell of each prompt, numbered from 0, shape (prompts,).
        prompt_ranks: its rank in the cell.
        probabilities: of the cells, shape (cells,).
        draws: uniform in (0, 1), one per prompt.
        size: how many, at most as many as there are prompts.
    """
    order = np.lexsort((prompt_ranks, cells))
    waits = np.cumsum(-np.log(draws[order]))
    first = np.flatnonzero(prompt_ranks[order] == 0)
    starts = np.concatenate([[0.0], waits])[first]
    # divided last: one sum over cells whose probabilities differ by many orders of magnitude would lose the likely cells' waits
    times = (waits - np.repeat(starts, np.diff(first, append=len(order)))) / probabilities[cells[order]]
    return np.asarray(order[np.argsort(times, kind="stable")[:size]])


class UpdateArchive(TableStep):
    """Puts the prompts that an iteration scored into their cells. The module's docstring has the definition.

    Inputs: the prompt set and its informativeness; then, where they exist, the archive before, the novelty of the prompts, and their topics
    and complexity.

    Attributes:
        cell: how a prompt's cell is found.
        iteration: number of the iteration that scored the prompts.
        novelty_weight: as of `creator.curate.novelty`.

    Input columns:
        - prompt_id, messages, reference; prompt_id, weight, uniform (null = not scored); the others: the columns of the output, or
          prompt_id and distance, topic or complexity
    Output columns:
        - prompt_id, cell, weight and iteration (of the last scoring), value, rank (0 = best of its cell)
    Categories:
        - scorer
    """

    cell: str | FunctionCode = BY_LABELS
    iteration: int = 1
    novelty_weight: float = 0.0

    reads = {
        **dict.fromkeys(("prompt_id", "messages", "reference", "weight", "uniform"), True),
        **dict.fromkeys(("cell", "value", "iteration", "distance", "topic", "complexity"), False),
    }
    writes = ["prompt_id", "cell", "weight", "value", "iteration", "rank"]

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        prompts, info, *more_sources = sources
        check_same_order([prompts, info], "the prompts and their informativeness")
        ids, weights = prompts["prompt_id"], info["weight"].to_numpy()
        distances = _column(more_sources, "distance", ids)
        values = weights if distances is None else novel_weights(weights, distances.to_numpy(), self.novelty_weight)
        cells = labelled_cells(ids, more_sources) if self.cell == BY_LABELS else found_cells(self.cell, prompts)
        is_scored = info["uniform"].is_valid()
        is_member = pc.and_(is_scored, cells.is_valid())
        members = pa.table(
            {"prompt_id": ids, "cell": cells, "weight": weights, "value": values, "iteration": pa.repeat(self.iteration, len(ids))}
        )
        parts = [members.filter(is_member)]
        archives = [{name: rows[name] for name in members.column_names} for rows in more_sources if "cell" in rows.names]
        parts += [pa.table({**columns, "value": columns["weight"]}) for columns in archives]
        archive = pa.concat_tables([part.cast(parts[0].schema) for part in parts]).combine_chunks()
        archive = archive.take(first_places(archive["prompt_id"].combine_chunks()))
        numbers = archive["cell"].combine_chunks().dictionary_encode().indices.to_numpy()
        ties = uniforms(0, archive["prompt_id"].combine_chunks())
        prompt_ranks = ranks(numbers, archive["value"].to_numpy(), ties)
        yield archive.append_column("rank", pa.array(prompt_ranks, pa.int32()))
        return {
            "cells": int((prompt_ranks == 0).sum()),
            "unscored": pc.invert(is_scored).sum().as_py() or 0,
            "no_cell": pc.and_not(is_scored, is_member).sum().as_py() or 0,
        }


def found_cells(cell: str | FunctionCode, prompts: Rows) -> pa.Array:
    """The cells of prompts by a function."""
    function = load_choice(cell, CELL)
    cells = list[str]()
    for table in prompts.batches(["messages", "reference"]):
        pairs = zip(table["messages"].to_pylist(), table["reference"].to_pylist(), strict=True)
        cells += [cell_name(function, messages, reference) for messages, reference in pairs]
    return pa.array(cells, pa.string())


def labelled_cells(ids: pa.Array, sources: Sequence[Rows]) -> pa.Array:
    """The cells of prompts by the artifacts with their topics and complexity; null where a label is missing.

    Raises:
        DataError: if one of the two is not among the artifacts.
    """
    topics, complexities = (_column(sources, name, ids) for name in ("topic", "complexity"))
    if topics is None or complexities is None:
        raise DataError("cells of the kind topic_complexity need the prompts' topics and complexity")
    labels = zip(topics.to_pylist(), complexities.to_pylist(), strict=True)
    cells = [None if topic is None or complexity is None else topic_complexity(topic, complexity) for topic, complexity in labels]
    return pa.array(cells, pa.string())


def _column(sources: Sequence[Rows], name: str, ids: pa.Array) -> pa.Array | None:
    """A column of the artifact that has it, for the prompts with these ids; None if no artifact has it."""
    rows = next((rows for rows in sources if name in rows.names), None)
    return None if rows is None else rows[name].take(pc.index_in(ids, value_set=rows["prompt_id"]))


class SelectFromArchive(TableStep):
    """Draws parents from the cells of an archive. Inputs: the archive, the current prompt set (for its size).

    Attributes:
        fraction: of the size of the current set.
        temperature: T.

    Input columns:
        - prompt_id, cell, value, rank
    Output columns:
        - prompt_id, probability (of its cell in a single draw), draw (0 = first)
    Categories:
        - filtering
    """

    fraction: float = 0.25
    temperature: float = 0.2
    seed: int = 0

    reads = ["prompt_id", "cell", "value", "rank"]
    writes = ["prompt_id", "probability", "draw"]

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        archive, prompts = sources
        ids, prompt_ranks = archive["prompt_id"], archive["rank"].to_numpy()
        size = min(round(self.fraction * len(prompts)), len(ids))
        if size == 0:
            raise DataError(f"nothing to select: the archive has {len(ids)} prompts, the fraction is {self.fraction} of {len(prompts)}")
        cells = archive["cell"].dictionary_encode().indices.to_numpy()
        best_values = np.zeros(cells.max() + 1)
        best_values[cells[prompt_ranks == 0]] = archive["value"].to_numpy()[prompt_ranks == 0]
        probabilities = cell_probabilities(best_values, self.temperature)
        places = draw_parents(cells, prompt_ranks, probabilities, uniforms(self.seed, ids), size)
        columns = {
            "prompt_id": ids.take(pa.array(places)),
            "probability": probabilities[cells[places]],
            "draw": pa.array(np.arange(size), pa.int32()),
        }
        yield pa.table(columns)
        return {
            "cells": len(np.unique(cells[places])),
            "from_earlier_sets": size - int(pc.is_in(columns["prompt_id"], prompts["prompt_id"]).sum().as_py()),
        }


class ArchivedPrompts(TableStep):
    """The prompts that were drawn from the archive, in the order drawn. Inputs: the selection, then the prompt sets.

    Input columns:
        - prompt_id; the columns of a prompt row
    Output columns:
        - the columns of a prompt row
    Categories:
        - filtering
    """

    reads = SCHEMAS["prompts"].names
    writes = SCHEMAS["prompts"].names

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        selected_rows, *sets = sources
        set_ids = pa.concat_arrays([rows["prompt_id"] for rows in sets])
        places = pc.index_in(selected_rows["prompt_id"], value_set=set_ids)
        if places.null_count:
            raise DataError(f"{places.null_count} of {len(places)} selected prompts are in no prompt set")
        for table in take(sets, places.to_numpy(), SCHEMAS["prompts"].names):
            yield table.cast(SCHEMAS["prompts"])
        return {}
