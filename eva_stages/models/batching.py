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
