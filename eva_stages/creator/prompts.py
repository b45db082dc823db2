"""Where prompts come from: Lettercraft, or a file of real ones. Whatever cannot be used is left out and counted, never repaired."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from eva_stages.core.errors import ConfigError, DataError
from eva_stages.core.fingerprint import derive_seed, uniforms
from eva_stages.core.rows import SCHEMAS, Message, prompt_row
from eva_stages.core.runner import Context
from eva_stages.core.tables import BATCH, Rows, first_places, write_rows
from eva_stages.microworld.language import MIN_LETTERS, Instruction, random_instruction
from eva_stages.models.conversation import Chat
from eva_stages.models.loading import load_tokenizer

BLOCK = 1 << 20
"""Bytes of a text file that are read at a time."""
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
    chat_template: str | None = None,
    policy: str | None = None,
) -> dict[str, Any]:
    """Read prompts from a file; nulls, empty ones, duplicates, over-long ones and those that the policy's chat template does not take are
    left out and counted.

    Args:
        chat_template: digest of the policy's.
        policy: its checkpoint folder; None = any prompt will do.
        size: how many to draw; None = all.
        part: which `size` of them in the order of the draw: 0 the seed prompts, 1 those that follow, and so on, all disjoint.
    """
    counts: Counter[str] = Counter()
    tables = prompt_batches(Path(file), column, reference_column)
    usable = _usable(tables, Path(file).name, column, max_characters, reference_column, counts, refusals(policy))
    write_rows((pa.Table.from_pylist(rows, schema=SCHEMAS["prompts"]) for rows in usable), SCHEMAS["prompts"], context.work / "usable")
    rows = Rows(context.work / "usable", context.work)
    kept = first_places(rows["prompt_id"])
    if len(kept) < len(rows):
        counts["duplicate"] = len(rows) - len(kept)
    if len(kept) == 0:
        raise DataError(f"{Path(file).name} has no usable prompt in column {column!r} ({dict(counts)})")
    if size is not None and (size < len(kept) or part):
        draws = uniforms(derive_seed(seed, "prompts"), rows["prompt_id"].take(pa.array(kept)))
        chosen = np.argsort(draws)[size * part : size * (part + 1)]
        if len(chosen) < size and part:
            raise DataError(f"{Path(file).name} has {len(kept)} usable prompts; {size * (part + 1)} are needed up to iteration {part}")
        counts["not_sampled"] = len(kept) - size
        kept = kept[np.sort(chosen)]
    write_rows(rows.take(kept), SCHEMAS["prompts"], context.out)
    return {"counts": dict(counts)}


def count_usable(
    tables: Iterable[pa.Table],
    column: str,
    max_characters: int,
    reference_column: str | None,
    policy: str | None = None,
    counts: Counter[str] | None = None,
) -> int:
    """How many different prompts of a source can be used; `counts` takes how many others were left out for what reason."""
    usable = _usable(tables, "", column, max_characters, reference_column, Counter() if counts is None else counts, refusals(policy))
    return len(pa.chunked_array([[row["prompt_id"] for row in rows] for rows in usable], pa.string()).unique())


REFUSED = "refused by the chat template"


def refusals(policy: str | None) -> Callable[[Sequence[Message]], str | None]:
    """Tells why the chat template of a checkpoint does not take a prompt. A single message of the user, which every one takes, is not
    rendered; the template is loaded for the first prompt that is more.
    """

    @cache
    def chat() -> Chat:
        return Chat(load_tokenizer(str(policy)))

    def refusal(messages: Sequence[Message]) -> str | None:
        return None if policy is None or len(messages) == 1 else chat().refusal(messages)

    return refusal


def _usable(
    tables: Iterable[pa.Table],
    source: str,
    column: str,
    max_characters: int,
    reference_column: str | None,
    counts: Counter[str],
    refusal: Callable[[Sequence[Message]], str | None],
) -> Iterator[list[dict[str, Any]]]:
    """Batches of prompt rows, duplicates among them; `counts` takes how many were read, and left out for what reason."""
    for table in tables:
        counts["read"] += len(table)
        for values in _values(table, column, reference_column):
            rows = []
            for value, reference in values:
                messages = _messages(value)
                if messages is None:
                    counts["null_or_empty"] += 1
                elif sum(len(message["content"]) for message in messages) > max_characters:
                    counts["too_long"] += 1
                elif reason := refusal(messages):
                    counts[f"{REFUSED}: {reason}"] += 1
                else:
                    rows.append(prompt_row(messages, source, reference=reference))
            yield rows


def prompt_batches(path: Path, column: str, reference_column: str | None = None) -> Iterator[pa.Table]:
    """The prompt column of a file, and the column with references where one is named, some rows at a time.

    Raises:
        ConfigError: if the file is missing, empty, of an unknown kind, unreadable or without the column or a value in it; what is wrong
            with rows is known when they are reached.
    """
    if not path.is_file():
        raise ConfigError([f"prompts.path: there is no file {path}"])
    blocks = READERS.get(path.suffix)
    if blocks is None:
        raise ConfigError([f"prompts.path: {path} ends in {path.suffix or 'nothing'}; known: {', '.join(READERS)}"])
    if path.stat().st_size == 0:
        raise ConfigError([f"prompts.path: {path} is empty"])
    names = {name: place for name, place in ((column, "column"), (reference_column, "reference_column")) if name is not None}
    known: dict[str, None] = {}
    values = 0
    try:
        for block in blocks(path, list(names)):
            known |= dict.fromkeys(block.column_names)
            found = {name: block[name] if name in block.column_names else pa.nulls(len(block)) for name in names}
            values += len(block) - found[column].null_count
            yield pa.table(found)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ConfigError([f"prompts.path: {path} cannot be read as {path.suffix}: {error}"]) from error
    for name, place in names.items():
        if name not in known:
            raise ConfigError([f"prompts.{place}: {path} has no column {name!r}; it has {', '.join(known)}"])
    if not values:
        raise ConfigError([f"prompts.path: {path} has no prompts in column {column!r}"])


def _json_blocks(path: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    # by `json`, which takes a text for a text; pyarrow's reader takes one that looks like a date for a date
    prompt, *references = columns
    number = 0
    with path.open("rb") as stream:
        while lines := stream.readlines(BLOCK):
            rows: list[dict[str, Any]] = []
            for line in lines:
                number += 1
                if line.strip():
                    rows.append(_json_object(line, number))
            found = {name: pa.nulls(len(rows)) for row in rows for name in row}
            found |= {name: pa.array([_text(row.get(name)) for row in rows], pa.string()) for name in references if name in found}
            yield pa.table({**found, **({prompt: pa.array([row.get(prompt) for row in rows])} if prompt in found else {})})


def _json_object(line: bytes, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f"line {number} is no object")
    return row


def _csv_blocks(path: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    lines = pyarrow.csv.ParseOptions(newlines_in_values=True)
    with pyarrow.csv.open_csv(path, parse_options=lines) as head:
        yield head.schema.empty_table()
        present = [name for name in columns if name in head.schema.names]
    # as text whatever the first block looks like, so that one type fits all of a column
    texts = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(present, pa.string()), include_columns=present, null_values=[""], strings_can_be_null=True
    )
    if present:
        with pyarrow.csv.open_csv(path, pyarrow.csv.ReadOptions(block_size=BLOCK), lines, texts) as blocks:
            yield from (pa.Table.from_batches([batch]) for batch in blocks)


def _parquet_blocks(path: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    file = pq.ParquetFile(path)
    yield file.schema_arrow.empty_table()
    present = [name for name in columns if name in file.schema_arrow.names]
    for batch in file.iter_batches(BATCH, columns=present):
        yield pa.Table.from_batches([batch])


READERS: dict[str, Callable[[Path, Sequence[str]], Iterator[pa.Table]]] = {
    ".jsonl": _json_blocks,
    ".json": _json_blocks,
    ".csv": _csv_blocks,
    ".parquet": _parquet_blocks,
}


def _values(table: pa.Table, column: str, reference_column: str | None) -> Iterator[Iterator[tuple[Any, str | None]]]:
    for batch in table.to_batches(max_chunksize=BATCH):
        references = batch[reference_column].to_pylist() if reference_column else [None] * len(batch)
        yield zip(batch[column].to_pylist(), map(_text, references), strict=True)


def _text(reference: Any) -> str | None:
    if reference is None or isinstance(reference, str):
        return reference
    if isinstance(reference, bool | int | float | list | dict):
        return json.dumps(reference, ensure_ascii=False, default=str)
    return str(reference)  # a date, a time, a decimal


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
