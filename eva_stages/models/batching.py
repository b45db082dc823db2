"""Batches within a budget of padded tokens, for all local models.

A batch holds sequences of about the same length, so that short conversations are not padded to the longest length.
"""

from collections.abc import Iterator, Sequence


def token_batches(lengths: Sequence[int], budget: int, copies: int = 1) -> Iterator[list[int]]:
    """Indices in batches, longest first, so that a batch that does not fit into memory fails at once.

    Args:
        lengths: tokens of each sequence, including room for a response.
        budget: padded tokens per batch; a longer sequence forms a batch alone.
        copies: number of sequences per index.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) + 1) * copies * lengths[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def room_batches(lengths: Sequence[int], rooms: Sequence[int], budget: int, copies: int, past_positions: bool) -> Iterator[list[int]]:
    """`token_batches` of prompts, each with room for a number of response tokens.

    A batch runs until its largest room is full. If the model cannot run past its positions, all prompts of a batch have the same room.
    """
    groups: dict[int, list[int]] = {}
    for index, room in enumerate(rooms):
        groups.setdefault(0 if past_positions else room, []).append(index)
    for group in groups.values():
        for batch in token_batches([lengths[index] + rooms[index] for index in group], budget, copies):
            yield [group[place] for place in batch]
