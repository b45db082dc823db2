"""Token-budget batches: what all local models share on their way to a forward pass.

A batch is as many sequences of about the same length as fit into a number of padded tokens, so that short and long conversations
cost what they hold and not what the longest one holds.
"""

from collections.abc import Iterator, Sequence


def token_batches(lengths: Sequence[int], budget: int, copies: int = 1) -> Iterator[list[int]]:
    """Indices in batches, longest first, so that a batch that does not fit into memory fails at once.

    Args:
        lengths: tokens of each sequence, room for an answer included.
        budget: padded tokens per batch; a sequence longer than that is a batch of its own.
        copies: sequences that each index stands for.
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
    """`token_batches` of prompts that are answered together, each with its room.

    A batch goes on until its largest room is filled. Where the model cannot run past its positions, a batch has one room.
    """
    groups: dict[int, list[int]] = {}
    for index, room in enumerate(rooms):
        groups.setdefault(0 if past_positions else room, []).append(index)
    for group in groups.values():
        for batch in token_batches([lengths[index] + rooms[index] for index in group], budget, copies):
            yield [group[place] for place in batch]
