"""Files of judgments and responses that other tools wrote: JSON or JSON lines, plain or gzipped, recognised by content.

Every row has its file and place, for messages. A file is recognised by the fields of its rows; a file of another kind is an error that
names both kinds.
"""

import json
import re
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from eva_stages.core.errors import ConfigError
from eva_stages.core.json_lines import read_objects

ERRORS_PER_FILE = 5
"""Errors reported per file."""

T = TypeVar("T")

_SURROGATE = re.compile("[\ud800-\udfff]")
_KINDS: tuple[tuple[str, frozenset[str]], ...] = (
    ("Arena-Hard battles", frozenset({"model_a", "model_b", "winner"})),
    ("Arena-Hard raw judgments", frozenset({"model", "games"})),
    ("FastChat pairwise judgments", frozenset({"model_1", "model_2", "g1_winner"})),
    ("AlpacaEval annotations", frozenset({"generator_2", "preference"})),
    ("FastChat single-answer judgments", frozenset({"question_id", "model", "turn", "score"})),
    ("FastChat single-answer judgments", frozenset({"question_id", "model", "turn", "judgment"})),
    ("AlpacaEval model outputs", frozenset({"instruction", "output"})),
    ("FastChat or Arena-Hard answers", frozenset({"question_id", "choices"})),
    ("Arena-Hard answers", frozenset({"uid", "model", "messages"})),
    ("benchmark questions", frozenset({"category", "turns"})),
    ("benchmark questions", frozenset({"uid", "prompt"})),
)


class Record(NamedTuple):
    """A row of a file and its place: a line of JSON lines, an entry of a JSON list."""

    path: Path
    place: str
    row: dict[str, Any]

    def message(self, text: str) -> str:
        return f"{self.path}, {self.place}: {text}"


def kind_of(row: dict[str, Any]) -> str | None:
    """The kind of a row, by its fields; None if it is unknown."""
    return next((name for name, fields in _KINDS if fields <= row.keys()), None)


def read_records(paths: Iterable[Path], kinds: tuple[str, ...], benchmark: str) -> list[Record]:
    """The rows of files that must each hold one of `kinds`.

    Raises:
        ConfigError: for every file that is missing, unreadable, empty or of another kind, with what is expected.
    """
    errors: list[str] = []
    records: list[Record] = []
    seen_paths: set[Path] = set()
    for path in paths:
        try:
            if path.resolve() in seen_paths:
                raise ConfigError([f"{path} is given twice, and its rows would count twice; give each file once"])
            seen_paths.add(path.resolve())
            records += _of_kinds(_rows(path), path, kinds, benchmark)
        except ConfigError as error:
            errors += error.faults
    if errors:
        raise ConfigError(errors)
    return records


def parse_records(records: Iterable[Record], parse: Callable[[Record], T]) -> list[T]:
    """Each record parsed.

    Raises:
        ConfigError: with the first errors of each file. `parse` raises ValueError with a row's field, its value and what is expected.
    """
    values: list[T] = []
    errors: dict[Path, list[str]] = {}
    for record in records:
        try:
            values.append(parse(record))
        except ValueError as error:
            errors.setdefault(record.path, []).append(record.message(str(error)))
    if errors:
        raise ConfigError([line for path, lines in errors.items() for line in _first(path, lines)])
    return values


def text_field(row: dict[str, Any], *names: str) -> str:
    """The first of the fields that has a value, as text; ids are numbers in some files."""
    value = next((row[name] for name in names if row.get(name) is not None), None)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str | int) and not isinstance(value, bool) and value != "" and not _SURROGATE.search(str(value)):
        return str(value)
    raise ValueError(f"{' or '.join(names)} is {json.dumps(value)[:80]}; expected a name or an id")


def judgment_field(judgment: Any) -> str | None:
    """The judge's text, or None."""
    if not isinstance(judgment, str | None):
        raise ValueError(f"judgment is {json.dumps(judgment)[:80]}; expected the judge's text, or null")
    return judgment


def judge_field(row: dict[str, Any]) -> str | None:
    """The judge of a row: `judge` (FastChat writes a list of judge and template), or AlpacaEval's `annotator`; None = not recorded."""
    judge = row.get("judge") if row.get("judge") is not None else row.get("annotator")
    judge = judge[0] if isinstance(judge, list) and judge else judge
    if not isinstance(judge, str | None):
        raise ValueError(f"judge is {json.dumps(judge)[:80]}; expected a name, or a list that begins with one")
    return judge


def _first(path: Path, errors: list[str]) -> list[str]:
    hidden_count = len(errors) - ERRORS_PER_FILE
    return errors[:ERRORS_PER_FILE] + ([f"{path}: and {hidden_count} more rows with errors"] if hidden_count > 0 else [])


def _of_kinds(records: list[Record], path: Path, kinds: tuple[str, ...], benchmark: str) -> list[Record]:
    expected_text = f"expected for {benchmark}: {' or '.join(dict.fromkeys(kinds))}"
    if not records:
        raise ConfigError([f"{path} is empty; {expected_text}"])
    strangers = [record for record in records if kind_of(record.row) not in kinds]
    if strangers:
        kind = kind_of(strangers[0].row)
        looks = f"looks like {kind}" if kind else f"has the fields {', '.join(sorted(strangers[0].row)) or 'none'}"
        raise ConfigError([strangers[0].message(f"{looks}; {expected_text}")])
    return records


def _rows(path: Path) -> list[Record]:
    try:
        return [Record(path, entry.place, entry.value) for entry in read_objects(path)]
    except FileNotFoundError as error:
        raise ConfigError([f"{path} does not exist"]) from error
    except ValueError as error:
        raise ConfigError([f"{path}, {error}"]) from error
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError([f"{path} cannot be read: {error}"]) from error
