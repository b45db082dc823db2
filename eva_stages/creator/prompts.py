"""Where prompts come from: Lettercraft, or a file of real ones. Whatever cannot be used is left out and counted, never repaired."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from eva_stages.core.errors import ConfigError, DataError
from eva_stages.core.fingerprint import derive_seed, uniforms
from eva_stages.core.rows import SCHEMAS, Message, prompt_row
from eva_stages.core.runner import Context
from eva_stages.core.tables import write_rows
from eva_stages.microworld.language import MIN_LETTERS, Instruction, random_instruction

READERS = {".jsonl": pyarrow.json.read_json, ".json": pyarrow.json.read_json, ".csv": pyarrow.csv.read_csv, ".parquet": pq.read_table}
HELD_OUT_SEED = derive_seed("lettercraft", "held-out")


def seed_instructions(seed: int, size: int) -> list[Instruction]:
    """Distinct Lettercraft seed prompts: one or two operations on short words, with a thin tail of harder ones."""
    rng = np.random.default_rng(derive_seed(seed, "lettercraft-seeds"))
    held_out = {str(instruction) for instruction in held_out_instructions(2000)}
    drawn: dict[str, Instruction] = {}
    while len(drawn) < size:
        hard = rng.random() < 0.1
        operations = int(rng.integers(2, 4)) if hard else int(rng.choice([1, 2], p=[0.6, 0.4]))
        letters = int(rng.integers(5, 9)) if hard else int(rng.integers(MIN_LETTERS + 1, 6))
        instruction = random_instruction(rng, operations, letters)
        if str(instruction) not in held_out:
            drawn[str(instruction)] = instruction
    return list(drawn.values())


def held_out_instructions(size: int) -> list[Instruction]:
    """The held-out benchmark: one to three operations on three to nine letters, the same in every run."""
    rng = np.random.default_rng(HELD_OUT_SEED)
    drawn: dict[str, Instruction] = {}
    while len(drawn) < size:
        instruction = random_instruction(rng, int(rng.integers(1, 4)), int(rng.integers(3, 10)))
        drawn[str(instruction)] = instruction
    return list(drawn.values())


def load_microworld(context: Context, seed: int, size: int, part: int = 0) -> dict[str, Any]:
    """Write Lettercraft's seed prompts, or the `part`-th `size` prompts that are drawn after them in the same way."""
    drawn = seed_instructions(seed, size * (part + 1))[size * part :]
    rows = [prompt_row([{"role": "user", "content": str(one)}], "lettercraft") for one in drawn]
    write_rows([pa.Table.from_pylist(rows, schema=SCHEMAS["prompts"])], SCHEMAS["prompts"], context.out)
    return {"counts": {}}


def load_held_out(context: Context, size: int) -> dict[str, Any]:
    """Write the held-out Lettercraft prompts."""
    rows = [prompt_row([{"role": "user", "content": str(one)}], "lettercraft-held-out") for one in held_out_instructions(size)]
    write_rows([pa.Table.from_pylist(rows, schema=SCHEMAS["prompts"])], SCHEMAS["prompts"], context.out)
    return {"counts": {}}


def load_file(
    context: Context,
    file: str,
    column: str,
    size: int | None,
    max_characters: int,
    seed: int,
    reference_column: str | None = None,
    part: int = 0,
) -> dict[str, Any]:
    """Read prompts from a file; nulls, empty ones, duplicates and over-long ones are left out and counted.

    Args:
        size: how many to draw; None = all.
        part: which `size` of them in the order of the draw: 0 the seed prompts, 1 those that follow, and so on, all disjoint.
    """
    kept, counts = usable_prompts(Path(file), column, max_characters, reference_column)
    if len(kept) == 0:
        raise DataError(f"{Path(file).name} has no usable prompt in column {column!r} ({dict(counts)})")
    if size is not None and (size < len(kept) or part):
        chosen = np.argsort(uniforms(derive_seed(seed, "prompts"), kept["prompt_id"].to_pylist()))[size * part : size * (part + 1)]
        if len(chosen) < size and part:
            raise DataError(f"{Path(file).name} has {len(kept)} usable prompts; {size * (part + 1)} are needed up to iteration {part}")
        counts["not_sampled"] = len(kept) - size
        kept = kept.take(pa.array(np.sort(chosen)))
    write_rows([kept], SCHEMAS["prompts"], context.out)
    return {"counts": dict(counts)}


def usable_prompts(path: Path, column: str, max_characters: int, reference_column: str | None = None) -> tuple[pa.Table, Counter[str]]:
    """All prompts of a file that can be used, and how many were read and left out for what reason.

    Raises:
        ConfigError: if the file cannot be read.
    """
    table = read_prompt_file(path, column, reference_column)
    counts: Counter[str] = Counter(read=len(table))
    rows: dict[str, dict[str, Any]] = {}
    for value, reference in _values(table, column, reference_column):
        messages = _messages(value)
        if messages is None:
            counts["null_or_empty"] += 1
        elif sum(len(message["content"]) for message in messages) > max_characters:
            counts["too_long"] += 1
        elif (row := prompt_row(messages, path.name, reference=reference))["prompt_id"] in rows:
            counts["duplicate"] += 1
        else:
            rows[row["prompt_id"]] = row
    return pa.Table.from_pylist(list(rows.values()), schema=SCHEMAS["prompts"]), counts


def read_prompt_file(path: Path, column: str, reference_column: str | None = None) -> pa.Table:
    """The prompt column of a file, and the column with references where one is named.

    Raises:
        ConfigError: if the file is missing, empty, of an unknown kind, unreadable or without the column.
    """
    if not path.is_file():
        raise ConfigError([f"prompts.path: there is no file {path}"])
    reader = READERS.get(path.suffix)
    if reader is None:
        raise ConfigError([f"prompts.path: {path} ends in {path.suffix or 'nothing'}; known: {', '.join(READERS)}"])
    if path.stat().st_size == 0:
        raise ConfigError([f"prompts.path: {path} is empty"])
    try:
        table = reader(path)
    except (pa.ArrowException, OSError) as error:
        raise ConfigError([f"prompts.path: {path} cannot be read as {path.suffix}: {error}"]) from error
    if column not in table.column_names:
        raise ConfigError([f"prompts.column: {path} has no column {column!r}; it has {', '.join(table.column_names)}"])
    if len(table) == 0 or pc.is_valid(table[column]).to_pylist().count(True) == 0:
        raise ConfigError([f"prompts.path: {path} has no prompts in column {column!r}"])
    if reference_column is None:
        return table.select([column])
    if reference_column not in table.column_names:
        known = ", ".join(table.column_names)
        raise ConfigError([f"prompts.reference_column: {path} has no column {reference_column!r}; it has {known}"])
    return table.select([column, reference_column])


def _values(table: pa.Table, column: str, reference_column: str | None) -> Iterator[tuple[Any, str | None]]:
    for batch in table.to_batches(max_chunksize=1024):
        references = batch[reference_column].to_pylist() if reference_column else [None] * len(batch)
        yield from zip(batch[column].to_pylist(), map(_text, references), strict=True)


def _text(reference: Any) -> str | None:
    return reference if reference is None or isinstance(reference, str) else json.dumps(reference, ensure_ascii=False)


def _messages(value: Any) -> Sequence[Message] | None:
    """A prompt as chat messages that end in a user turn; None if it is not one."""
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        return None
    messages = [_message(entry) for entry in value]
    whole = [message for message in messages if message is not None]
    return whole if len(whole) == len(value) and whole[-1]["role"] == "user" else None


def _message(entry: Any) -> Message | None:
    if not isinstance(entry, dict) or entry.get("role") not in ("system", "user", "assistant"):
        return None
    content = entry.get("content")
    return {"role": entry["role"], "content": content} if isinstance(content, str) and content.strip() else None
