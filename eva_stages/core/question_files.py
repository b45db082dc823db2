"""Evaluation sets in their published formats: their rows, and their questions as (id, text)."""

import csv
import io
import zlib
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from eva_stages.core.errors import DataError
from eva_stages.core.homes import HOMES, FileSource
from eva_stages.core.json_lines import open_plain, read_objects

TEXT_COLUMNS = ("prompt", "instruction", "question", "messages", "turns")
ID_COLUMNS = ("question_id", "uid", "id", "prompt_id", "key")
KINDS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".parquet")

EVALUATION_SETS = ("alpaca-eval", "mt-bench", "arena-hard", "arena-hard-v2.0", "gsm8k", "ifeval")
"""Evaluation sets with a known download address."""


def question_source(name: str) -> FileSource:
    """Where the questions of an evaluation set are, given by a name of `EVALUATION_SETS` or as a path."""
    return FileSource(home=HOMES[name]) if name in EVALUATION_SETS else FileSource(name)


def read_questions(path: Path) -> list[tuple[str, str]]:
    """The (id, text) of every question of an evaluation set; each user turn is a separate text with the question's id.

    Reads the official files of MT-Bench (`turns`), Arena-Hard v0.1 (`turns`) and v2.0 (`prompt`) and AlpacaEval (`instruction`), and any
    file of `KINDS` with one of `TEXT_COLUMNS`: a string, a list of strings, or a list of chat messages. The first of `ID_COLUMNS` is
    the id; without it, the row number is.

    Raises:
        DataError: if the file is missing, unreadable or of an unknown kind, has no known column, or has a row without text.
    """
    rows = read_rows(path)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = next((name for name in TEXT_COLUMNS if name in columns), None)
    if text is None:
        raise DataError(f"{path} has the columns {', '.join(columns) or '(none)'}; expected one of {', '.join(TEXT_COLUMNS)}")
    identity = next((name for name in ID_COLUMNS if name in columns), "")
    questions = []
    for number, row in enumerate(rows):
        turns = _turns(row.get(text))
        if not turns:
            raise DataError(f"{path}: row {number} (from 0) has no text in {text!r}")
        question_id = row.get(identity)
        questions += [(str(number if question_id is None else question_id), turn) for turn in turns]
    return questions


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of one of `KINDS`.

    Raises:
        DataError: if it cannot be read, or a row is not an object.
    """
    kind = next((kind for kind in KINDS if path.name.endswith(kind)), None)
    if kind is None:
        raise DataError(f"{path} has an unknown file type; known: {', '.join(KINDS)}")
    try:
        if kind == ".parquet":
            return list(pq.read_table(path).to_pylist())
        if kind.startswith(".json"):
            return [entry.value for entry in read_objects(path)]
        with io.TextIOWrapper(open_plain(path), "utf-8-sig", newline="") as stream:
            return list(csv.DictReader(stream, restkey="(more)"))
    except (OSError, EOFError, zlib.error, ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as {kind}: {error}") from error


def _turns(value: Any) -> list[str]:
    """The user's texts in a string, a list of strings, or a list of messages."""
    texts = [_user_text(entry) for entry in (value if isinstance(value, list) else [value])]
    return [text for text in texts if text is not None]


def _user_text(entry: Any) -> str | None:
    if isinstance(entry, dict):
        entry = entry.get("content") if entry.get("role") in (None, "user") else None
    return entry if isinstance(entry, str) and entry.strip() else None
