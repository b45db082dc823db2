"""Rows of evolutions: the order in which prompts are evolved, and the row of each evolution.

A rejected evolution is recorded with its reason. In a chain, the next one starts from the last usable prompt, and a failed call ends its
prompt's chain until the stage's next attempt: later generations would start from another prompt, and would be paid for twice. Siblings all
start from the selected prompt.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from eva_stages.core.failures import add_calls
from eva_stages.core.parts import FAILED_CALLS, STATISTICS, add_statistics
from eva_stages.core.rows import SCHEMAS, prompt_row, with_last_user_text

CONTEXT_COLUMNS = ("best", "worst", "best_reward", "worst_reward", "critique", "examples")
"""Columns that the evolver is shown; evolved prompts do not carry them."""
INPUTS = ("prompt_id", "messages", "root_id", "generation")
OUTPUTS = tuple(SCHEMAS["evolutions"].names)
Row = dict[str, Any]


class Evolution(NamedTuple):
    """What an evolver made of a prompt.

    `reason`: why it cannot be used; `failure`: why the call failed; `statistics`: tokens and costs of the call.
    """

    text: str
    reference: str | None
    mutation: str
    reason: str | None = None
    failure: str | None = None
    statistics: Mapping[str, float] = {}


def evolution_rows(
    selected_rows: Sequence[Row], generations: int, is_chain: bool, evolve: Callable[[list[Row], list[Row], int], list[Row]]
) -> list[Row]:
    """The rows of all evolutions, those of a prompt together.

    Args:
        evolve: one evolution of every parent, from the parents, their selected prompts and the attempt's number.
    """
    parents = [dict(row) for row in selected_rows]
    attempts: list[list[Row]] = [[] for _ in selected_rows]
    going_on = list(range(len(selected_rows)))
    for generation in range(generations if selected_rows else 0):
        if not going_on:
            break
        children = evolve([parents[index] for index in going_on], [selected_rows[index] for index in going_on], generation)
        for index, child in zip(going_on, children, strict=True):
            attempts[index].append(child)
            if is_chain and child["rejected"] is None:
                parents[index] = child
        if is_chain:
            going_on = [index for index in going_on if attempts[index][-1]["failure"] is None]
    return [row for rows in attempts for row in rows]


def child_row(parent: Row, evolution: Evolution, evolver: str) -> Row:
    """The row of an evolution, with its lineage and the counts of its call; `evolver`: what the row's source calls it."""
    reason = FAILED_CALLS if evolution.failure is not None else evolution.reason
    row = prompt_row(
        with_last_user_text(parent["messages"], evolution.text),
        f"evolved by {evolver}",
        parent_id=parent["prompt_id"],
        root_id=parent["root_id"],
        generation=parent["generation"] + 1,
        mutation=evolution.mutation,
        reference=evolution.reference,
    )
    other_columns = {name: value for name, value in parent.items() if name not in (*row, *CONTEXT_COLUMNS, STATISTICS)}
    child = {**other_columns, **row, "rejected": reason, "failure": evolution.failure}
    add_calls(child, evolution.failure)
    add_statistics(child, evolutions=1, rejected=int(reason not in (None, FAILED_CALLS)), **evolution.statistics)
    return child
