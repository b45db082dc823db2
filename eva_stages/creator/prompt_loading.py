"""Sources of prompts: Lettercraft, or a file. Unusable values are left out and counted, never repaired."""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from eva_stages.core.config.prompts_config import LettercraftDistribution
from eva_stages.core.errors import DataError
from eva_stages.core.fingerprint import derive_seed, uniforms
from eva_stages.core.rows import SCHEMAS, Message, prompt_row
from eva_stages.core.runner import Context
from eva_stages.core.tables import Rows, first_places, write_rows
from eva_stages.creator.conversations import UnusableError, conversation, reference_text
from eva_stages.creator.prompt_files import Block, prompt_batches
from eva_stages.lettercraft.distributions import DISTRIBUTIONS
from eva_stages.lettercraft.language import Instruction
from eva_stages.models.conversation import Chat
from eva_stages.models.loading import load_tokenizer

MAX_ROW_NUMBERS = 5
"""Row numbers that are shown of each reason to leave rows out."""
HELD_OUT_SEED = derive_seed("lettercraft", "held-out")


def seed_instructions(seed: int, size: int, distribution: LettercraftDistribution = "classic") -> list[Instruction]:
    """Distinct Lettercraft seed prompts, none of them held out."""
    held_out_name: LettercraftDistribution = "classic_target" if distribution.startswith("classic") else "deep_target"
    held_out_texts = {str(instruction) for instruction in held_out_instructions(2000, held_out_name)}
    return _different(distribution, derive_seed(seed, "lettercraft-seeds"), size, held_out_texts)


def held_out_instructions(size: int, distribution: LettercraftDistribution = "classic_target") -> list[Instruction]:
    """The held-out benchmark, the same in every run."""
    return _different(distribution, HELD_OUT_SEED, size)


def _different(name: LettercraftDistribution, seed: int, size: int, other_texts: Container[str] = ()) -> list[Instruction]:
    """Different instructions of a distribution, none of them with one of `other_texts`."""
    rng = np.random.default_rng(seed)
    instructions: dict[str, Instruction] = {}
    while len(instructions) < size:
        instruction = DISTRIBUTIONS[name](rng)
        if str(instruction) not in other_texts:
            instructions[str(instruction)] = instruction
    return list(instructions.values())


def load_lettercraft(
    context: Context, seed: int, size: int, part: int = 0, distribution: LettercraftDistribution = "classic", references: bool = False
) -> dict[str, Any]:
    """Write Lettercraft's seed prompts, or the `part`-th set of `size` prompts after them in the same sequence."""
    instructions = seed_instructions(seed, size * (part + 1), distribution)[size * part :]
    return _write_instructions(context, instructions, "lettercraft", references)


def load_held_out(
    context: Context, size: int, distribution: LettercraftDistribution = "classic_target", references: bool = False
) -> dict[str, Any]:
    """Write the held-out Lettercraft prompts."""
    return _write_instructions(context, held_out_instructions(size, distribution), "lettercraft-held-out", references)


def _write_instructions(context: Context, instructions: Sequence[Instruction], source: str, references: bool) -> dict[str, Any]:
    rows = [
        prompt_row([{"role": "user", "content": str(instruction)}], source, reference=instruction.answer if references else None)
        for instruction in instructions
    ]
    write_rows([pa.Table.from_pylist(rows, schema=SCHEMAS["prompts"])], SCHEMAS["prompts"], context.artifact)
    return {"counts": {}}


def load_file(context: Context, file: str, column: str | None, reference_column: str | None = None, **settings: Any) -> dict[str, Any]:
    """Read prompts from a file; `settings` are those of `load_blocks`."""
    return load_blocks(context, prompt_batches(Path(file), column, reference_column), "file", Path(file).name, **settings)


def load_blocks(
    context: Context,
    blocks: Iterable[Block],
    source: str,
    name: str,
    size: int | None,
    max_characters: int,
    seed: int = 0,
    part: int = 0,
    chat_template: str | None = None,
    policy: str | None = None,
) -> dict[str, Any]:
    """Write the usable prompts. Values that are not prompts (`conversations`), duplicates, prompts that are too long and prompts that the
    policy's chat template refuses are left out and counted.

    Args:
        source: what the rows call their source, whatever its file is called.
        name: of the source, for errors.
        chat_template: digest of the policy's.
        policy: its checkpoint folder; None = any prompt will do.
        size: how many to draw; None = all.
        part: which `size` of them in the order of the draw: 0 the seed prompts, 1 those that follow, and so on, all disjoint.
    """
    left_out_rows = LeftOutRows()
    usable = _usable(blocks, source, max_characters, left_out_rows, refusals(policy))
    write_rows((pa.Table.from_pylist(rows, schema=SCHEMAS["prompts"]) for rows in usable), SCHEMAS["prompts"], context.work / "usable")
    counts = left_out_rows.counts
    rows = Rows(context.work / "usable", context.work)
    places = first_places(rows["prompt_id"])
    if len(places) < len(rows):
        counts["duplicate"] = len(rows) - len(places)
    if len(places) == 0:
        raise DataError(f"{name} has no usable prompt: {left_out_rows.summary()}")
    if size is not None and (size < len(places) or part):
        draws = uniforms(derive_seed(seed, "prompts"), rows["prompt_id"].take(pa.array(places)))
        chosen = np.argsort(draws)[size * part : size * (part + 1)]
        if len(chosen) < size and part:
            raise DataError(f"{name} has {len(places)} usable prompts; {size * (part + 1)} are needed up to iteration {part}")
        counts["not_sampled"] = len(places) - size
        places = places[np.sort(chosen)]
    write_rows(rows.take(places), SCHEMAS["prompts"], context.artifact)
    return {"counts": dict(counts)}


class LeftOutRows:
    """How many rows were read, how many were left out for what reason, and which were the first of them."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.rows: dict[str, list[int]] = {}

    def add(self, reason: str, row: int) -> None:
        self.counts[reason] += 1
        first = self.rows.setdefault(reason, [])
        if len(first) < MAX_ROW_NUMBERS:
            first.append(row)

    def summary(self) -> str:
        """The reasons, each with how many rows it is and the numbers of the first."""
        reasons = sorted(self.rows.items(), key=lambda entry: -self.counts[entry[0]])
        return "; ".join(
            f"{reason}: {self.counts[reason]} rows ({', '.join(map(str, rows))}{', ...' if self.counts[reason] > len(rows) else ''})"
            for reason, rows in reasons
        )


def count_usable(blocks: Iterable[Block], max_characters: int, policy: str | None = None, left_out_rows: LeftOutRows | None = None) -> int:
    """How many different prompts of a source can be used; `left_out_rows` takes the others."""
    usable = _usable(blocks, "", max_characters, left_out_rows or LeftOutRows(), refusals(policy))
    return len(pa.chunked_array([[row["prompt_id"] for row in rows] for rows in usable], pa.string()).unique())


REFUSED_BY_TEMPLATE = "refused by the chat template"


def refusals(policy: str | None) -> Callable[[Sequence[Message]], str | None]:
    """A function that returns why a checkpoint's chat template refuses a prompt, or None. Every template accepts a single user message, so
    the template is loaded for the first longer prompt.
    """

    @cache
    def chat() -> Chat:
        return Chat(load_tokenizer(str(policy)))

    def refusal(messages: Sequence[Message]) -> str | None:
        return None if policy is None or len(messages) == 1 else chat().refusal(messages)

    return refusal


def _usable(
    blocks: Iterable[Block],
    source: str,
    max_characters: int,
    left_out_rows: LeftOutRows,
    refusal: Callable[[Sequence[Message]], str | None],
) -> Iterator[list[dict[str, Any]]]:
    """Batches of prompt rows, duplicates among them."""
    for block in blocks:
        left_out_rows.counts["read"] += len(block.values)
        rows = []
        for value, reference, number in zip(*block, strict=True):
            try:
                messages, reference_value = conversation(value), reference_text(reference)
            except UnusableError as error:
                left_out_rows.add(str(error), number)
                continue
            if sum(len(message["content"]) for message in messages) > max_characters:
                left_out_rows.add("too_long", number)
            elif reason := refusal(messages):
                left_out_rows.add(f"{REFUSED_BY_TEMPLATE}: {reason}", number)
            else:
                rows.append(prompt_row(messages, source, reference=reference_value))
        yield rows
