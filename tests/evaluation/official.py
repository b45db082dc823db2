"""The official evaluation data, where available, and small judgments in the official formats."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import EVALDATA

needs_evaldata = pytest.mark.skipif(not EVALDATA.is_dir(), reason=f"the official evaluation data is not at {EVALDATA}")


def official_rows(*parts: str) -> list[dict[str, Any]]:
    """The rows of an official file, read without the code under test."""
    content = (EVALDATA / Path(*parts)).read_bytes()
    text = (gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content).decode()
    return json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]


def official_files(*parts: str) -> list[Path]:
    """The files of an official folder; none where the data is absent, which the test that uses them says."""
    folder = EVALDATA / Path(*parts)
    return sorted(folder.iterdir()) if folder.is_dir() else []


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def rating_row(model: str, question: int, turn: int, score: Any) -> dict[str, Any]:
    judge = ["gpt-4", "single-v1" if turn == 1 else "single-v1-multi-turn"]
    return {"question_id": question, "model": model, "judge": judge, "judgment": f"Rating: [[{score}]]", "score": score, "turn": turn}


def judgment_row(model: str, question: str, first: str | None, second: str | None) -> dict[str, Any]:
    """A row of 2024's raw judgments."""
    games = [{"user_prompt": "", "judgment": "", "score": score} for score in (first, second)]
    return {"question_id": question, "model": model, "judge": "j", "games": games}


def judged_v2(model: str, question: str, first: str | None, second: str | None, category: str = "hard_prompt") -> dict[str, Any]:
    """A row of current raw judgments; a game that failed is null."""
    games = [None if score is None else {"score": score, "judgment": {"answer": ""}, "prompt": []} for score in (first, second)]
    return {"uid": question, "category": category, "judge": "j", "model": model, "games": games}


def annotation_row(model: str, instruction: str, preference: float | None, length: int = 10) -> dict[str, Any]:
    return {
        "instruction": instruction,
        "output_1": "x" * 20,
        "generator_1": "gpt4_1106_preview",
        "output_2": "y" * length,
        "generator_2": model,
        "annotator": "weighted_alpaca_eval_gpt4_turbo",
        "preference": preference,
    }
