"""Small benchmarks in the official formats, written by the tests: invented questions, and templates with the official fields."""

import json
from pathlib import Path

SINGLE = '[Instruction]\nRate the answer as "[[rating]]", for example: "Rating: [[5]]".\n\n[Question]\n{question}\n\n'
ANSWER = "[The Start of Assistant's Answer]\n{answer}\n[The End of Assistant's Answer]"
REFERENCE = "[The Start of Reference Answer]\n{ref_answer_1}\n[The End of Reference Answer]\n\n"
TURNS = "### User:\n{question_1}\n\n### Assistant A:\n{answer_1}\n\n### User:\n{question_2}\n\n### Assistant A:\n{answer_2}"
PAIR = "<|User Prompt|>\n{question_1}\n\n<|A|>\n{answer_1}\n<|end of A|>\n\n<|B|>\n{answer_2}\n<|end of B|>"
BASELINE = "The baseline says: {}"


def lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def mt_bench(folder: Path, count: int) -> dict[str, str]:
    """Write questions, every second one about mathematics and with a reference; return the paths as fields of a recipe."""
    questions = [
        {"question_id": 100 + n, "category": "math" if n % 2 else "writing", "turns": [f"First of {n}?", f"Second of {n}?"]}
        for n in range(count)
    ]
    references = [
        {"question_id": row["question_id"], "choices": [{"turns": ["Worked one.", "Worked two."]}]}
        for row in questions
        if row["category"] == "math"
    ]
    templates = {
        "single-v1": SINGLE + ANSWER,
        "single-math-v1": SINGLE + REFERENCE + ANSWER,
        "single-v1-multi-turn": TURNS,
        "single-math-v1-multi-turn": "{ref_answer_1}\n{ref_answer_2}\n" + TURNS,
    }
    prompts = [{"name": name, "type": "single", "system_prompt": "Judge.", "prompt_template": text} for name, text in templates.items()]
    return {
        "questions": str(lines(folder / "mt.jsonl", questions)),
        "references": str(lines(folder / "references.jsonl", references)),
        "prompts": str(lines(folder / "prompts.jsonl", prompts)),
    }


def arena_hard(folder: Path, count: int) -> dict[str, str]:
    """Write numbered questions, a baseline's responses and the judge's settings; return the paths as fields of a recipe."""
    questions = [{"question_id": f"q{n}", "category": "arena-hard-v0.1", "turns": [{"content": f"Question {n}?"}]} for n in range(count)]
    answers = [
        {"question_id": row["question_id"], "model_id": "old", "choices": [{"turns": [{"content": BASELINE.format(row["question_id"])}]}]}
        for row in questions
    ]
    settings = folder / "settings.yaml"
    settings.write_text(json.dumps({"system_prompt": "Compare.", "prompt_template": [PAIR]}))
    return {
        "questions": str(lines(folder / "arena.jsonl", questions)),
        "baseline": str(lines(folder / "baseline.jsonl", answers)),
        "prompts": str(settings),
    }


def alpaca_eval(folder: Path, count: int) -> dict[str, str]:
    """Write instructions with reference outputs; return the paths as fields of a recipe."""
    rows = [
        {"dataset": "made", "instruction": f"Instruction {n}.", "output": BASELINE.format(f"i{n}"), "generator": "old"}
        for n in range(count)
    ]
    file = folder / "outputs.json"
    file.write_text(json.dumps(rows))
    return {"questions": str(file), "baseline": str(file)}
