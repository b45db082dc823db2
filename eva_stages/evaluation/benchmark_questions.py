"""Questions and baseline responses of the public benchmarks: from the official files to eva's rows.

Both generations of the official formats are known: `turns` or `prompt`, `question_id` or `uid`, responses under `choices` or `messages`.
Texts are copied byte for byte. Every question keeps its official id beside the `prompt_id` that joins rows.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from eva_stages.core.decoding import short
from eva_stages.core.errors import DataError
from eva_stages.core.question_files import read_rows
from eva_stages.core.rows import SCHEMAS, prompt_id
from eva_stages.core.runner import Context
from eva_stages.core.tables import read_table, write_rows

Row = dict[str, Any]
T = TypeVar("T")
GSM8K_FORMAT = "\n\nSolve this step by step. Then give the final answer, a bare number, on a last line of this form:\n#### <number>"
"""eva's own zero-shot instruction; most published GSM8K figures are few-shot (use `lm_eval` for them)."""


def load_questions(context: Context, benchmark: str) -> dict[str, Any]:
    """Write a benchmark's questions.

    Inputs of the stage: questions; for MT-Bench also references.

    Raises:
        DataError: if the file is not in the benchmark's format, or has a question twice.
    """
    rows = question_rows(benchmark, context.inputs["questions"], context.inputs.get("references"))
    write_rows([pa.Table.from_pylist(rows, schema=SCHEMAS["questions"])], SCHEMAS["questions"], context.artifact)
    return {"counts": {}}


def question_rows(benchmark: str, path: Path, references: Path | None = None) -> list[Row]:
    """Rows of the `questions` schema, in the file's order."""
    rows = _parsed_rows(path, READERS[benchmark], f"question file of {benchmark}")
    reference_turns = dict(_parsed_rows(references, _reference, f"file of references of {benchmark}")) if references else {}
    rows_by_id: dict[str, Row] = {}
    for row in rows:
        messages = [{"role": "user", "content": row["turns"][0]}]
        full_row = {
            "prompt_id": prompt_id(messages),
            "messages": messages,
            "references": reference_turns.get(row["question_id"]),
            **row,
        }
        if full_row["prompt_id"] in rows_by_id:
            first = rows_by_id[full_row["prompt_id"]]["question_id"]
            raise DataError(f"{path} has the same prompt in questions {first} and {row['question_id']}; keep one of them")
        rows_by_id[full_row["prompt_id"]] = full_row
    if not rows_by_id:
        raise DataError(f"{path} has no questions")
    if repeated_ids := [name for name, count in Counter(row["question_id"] for row in rows).items() if count > 1]:
        raise DataError(f"{path} has more than one question with id {repeated_ids[0]}; give every question an id of its own")
    return list(rows_by_id.values())


def _parsed_rows(path: Path, parse: Callable[[Row], T], kind: str) -> list[T]:
    """Each row of a file, parsed.

    Raises:
        DataError: if a row has other fields than a file of this kind.
    """
    try:
        return [parse(row) for row in read_rows(path)]
    except (KeyError, IndexError, TypeError) as error:
        raise DataError(f"{path} is not a {kind}: a row has unexpected fields ({error})") from error


def _texts(turns: Any) -> list[str]:
    if not isinstance(turns, list) or not all(isinstance(text, str) for text in turns):
        raise TypeError(f"{short(turns)} is not a list of texts")
    return turns


def _reference(row: Row) -> tuple[str, list[str]]:
    return str(row["question_id"]), _texts(_turns(row))


def _mt_bench(row: Row) -> Row:
    turns = _texts(row["turns"])
    return {"question_id": str(row["question_id"]), "category": row["category"], "turns": [turns[0], turns[1]]}


def _arena_hard(row: Row) -> Row:
    text = row["turns"][0]["content"] if "turns" in row else row["prompt"]
    return {"question_id": _id(row), "category": row["category"], "turns": _texts([text])}


def _alpaca_eval(row: Row) -> Row:
    instruction = row["instruction"]
    return {"question_id": prompt_id([{"role": "user", "content": instruction}]), "category": row["dataset"], "turns": [instruction]}


def _gsm8k(row: Row) -> Row:
    text = row["question"] + GSM8K_FORMAT
    return {"question_id": prompt_id([{"role": "user", "content": text}]), "category": "gsm8k", "turns": [text], "reference": row["answer"]}


def _ifeval(row: Row) -> Row:
    checks = {"instruction_id_list": row["instruction_id_list"], "kwargs": row["kwargs"]}
    reference = json.dumps(checks, ensure_ascii=False)
    return {"question_id": str(row["key"]), "category": "ifeval", "turns": _texts([row["prompt"]]), "reference": reference}


def _custom(row: Row) -> Row:
    text, reference = row["question"], row.get("reference")
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"a row's question is {short(text)}; give a text")
    is_text = reference is None or isinstance(reference, str)
    return {
        "question_id": str(row.get("id") or prompt_id([{"role": "user", "content": text}])),
        "category": "custom",
        "turns": [text],
        "reference": reference if is_text else json.dumps(reference, ensure_ascii=False),
    }


READERS: dict[str, Callable[[Row], Row]] = {
    "mt_bench": _mt_bench,
    "arena_hard": _arena_hard,
    "alpaca_eval": _alpaca_eval,
    "gsm8k": _gsm8k,
    "ifeval": _ifeval,
    "custom": _custom,
}


def load_baseline(context: Context, benchmark: str) -> dict[str, Any]:
    """Write the responses of the official baseline, one row per question, in the questions' order.

    Inputs of the stage: questions; and files of responses, answers_0, answers_1, ... (Arena-Hard v2.0 has two baselines).

    Raises:
        DataError: if a question has no response.
    """
    questions = read_table(context.inputs["questions"], ["prompt_id", "question_id", "category"]).to_pylist()
    files = [path for name, path in sorted(context.inputs.items()) if name.startswith("answers")]
    answers = baseline_answers(benchmark, files)
    rows = []
    for question in questions:
        answer = answers.get((question["category"], question["question_id"])) or answers.get((None, question["question_id"]))
        if answer is None:
            raise DataError(f"{', '.join(map(str, files))}: there is no response to question {question['question_id']}")
        model, text = answer
        rows.append({"prompt_id": question["prompt_id"], "responses": [text], "finish_reasons": ["stop"], "generator": model})
    write_rows([pa.Table.from_pylist(rows, schema=SCHEMAS["responses"])], SCHEMAS["responses"], context.artifact)
    return {"counts": {}}


CREATIVE = "creative_writing"


def baseline_answers(benchmark: str, files: Iterable[Path]) -> dict[tuple[str | None, str], tuple[str, str]]:
    """(model, response) by category and question; the category is None where one model responds to all.

    Of Arena-Hard v2.0's two files the second has the baseline of creative writing.
    """
    answers: dict[tuple[str | None, str], tuple[str, str]] = {}
    for number, path in enumerate(files):
        category = CREATIVE if number else None
        for key, model, text in _parsed_rows(path, lambda row: _answer(benchmark, row), f"file of responses to {benchmark}"):
            answers[category, key] = model, text
    return answers


def _answer(benchmark: str, row: Row) -> tuple[str, str, str]:
    """Question id, model and response of a row in an official file."""
    if benchmark == "alpaca_eval":
        return prompt_id([{"role": "user", "content": row["instruction"]}]), row["generator"], row["output"]
    if "choices" in row:
        return _id(row), row["model_id"], _turns(row)[0]
    content = row["messages"][-1]["content"]
    return _id(row), row["model"], content["answer"] if isinstance(content, dict) else content


def _id(row: Row) -> str:
    return str(row["question_id"] if "question_id" in row else row["uid"])


def _turns(row: Row) -> list[str]:
    turns = row["choices"][0]["turns"]
    return [turn["content"] if isinstance(turn, dict) else turn for turn in turns]
