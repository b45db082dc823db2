"""Every example of docs/steps.md in a plain distilabel pipeline, with an LLM that is none of eva's. No step gives rows of None."""

import hashlib
import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from distilabel.models.llms import LLM

from eva_stages.core.pipeline_patches import LoudStep
from tests.tiny_models import save_classifier, save_embedder, tokenizer

PAGE = (Path(__file__).parents[1] / "docs" / "steps.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
MEASURES = {"max_length_ratio", "min_zlib_ratio", "length_ratio", "zlib_ratio"}
MAY_BE_NULL = {
    *("failure", "failures", "rejected", "reason", "finish_reasons", "token_counts", "response_ids", "reference", "parent_id", "mutation"),
    *("chosen_ids", "rejected_ids", "chosen_win_probability", "rejected_win_probability", "original_chosen", "original_reward"),
    *(
        "replies",
        "objectives",
        "verdict",
        "rating",
        "cost",
        "baseline",
        "raw",
        "reply_ids",
        "left_out_by",
        "prompt",
        "cells",
        "nearest_distance",
    ),
}
"""Columns whose null means that there is nothing to report."""
BASES = {"LoudTask", "OneReplyTask", "TableStep", "JudgingTask"}
STEP = re.compile(rf"^class (\w+)\((?:LoudStep|{'|'.join(sorted(BASES))})\b", re.MULTILINE)


class PlainLLM(LLM):
    """An LLM as distilabel's: texts, and nothing about seeds, tokens or finish reasons. It replies as each request asks."""

    @property
    def model_name(self) -> str:
        return "plain"

    def generate(self, inputs: list[Any], num_generations: int = 1, suffix: str = "") -> list[Any]:
        return [{"generations": [_reply(messages[-1]["content"], number) for number in range(num_generations)]} for messages in inputs]


def _reply(request: str, number: int) -> str:
    digest = hashlib.sha256(f"{request}{number}".encode()).hexdigest()
    if "Given Prompt#" in request:
        return f"#Rewritten Prompt#: In {digest[:2]} words, what do {digest[2:8]} and {digest[8:14]} have in common?"
    if "Quality: <number>" in request:
        return "Quality: 4\nComplexity: 2"
    if "[[A]]: " in request:
        return "It is. [[A]]" if "[[A]]: Yes" in request else "It is. [[B]]"
    if "[[rating]]" in request:
        return f"Fine. Rating: [[{1 + int(digest[:4], 16) % 9}]]"
    if "Assistant A" in request:
        return "Both are short. [[A>B]]"
    return f"{digest[:6]} {digest[6:12]} {digest[12:18]}"


def steps_of_eva() -> list[type[LoudStep]]:
    """The steps, without their bases and without those that only read the journal of online training."""
    root = Path(__file__).parents[1]
    names = [(path, name) for path in (root / "eva_stages").rglob("*.py") for name in STEP.findall(path.read_text())]
    modules = {path: importlib.import_module(".".join(path.relative_to(root).with_suffix("").parts)) for path, _ in names}
    return [getattr(modules[path], name) for path, name in names if name not in BASES and path.stem != "interval_tables"]


def test_every_step_of_eva_is_loud_has_an_example_and_describes_its_columns() -> None:
    steps = steps_of_eva()
    assert len(steps) > 30 and all(issubclass(step, LoudStep) for step in steps)
    code = "\n".join(BLOCKS)
    assert [step.__name__ for step in steps if f"{step.__name__}(" not in code] == []
    for step in steps:
        assert all(
            f"\n    {section}:\n        - " in (step.__doc__ or "") for section in ("Input columns", "Output columns", "Categories")
        ), step


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The names that the examples share; they run in a folder with the files that they name."""
    folder = tmp_path_factory.mktemp("examples")
    words = tokenizer(["What is the topic of this text?", "science", "words"])
    save_embedder(folder / "embedder", words)
    save_classifier(folder / "classifier", words)
    template = {"type": "single", "system_prompt": "Be strict.", "prompt_template": "Rate as [[rating]]: {answer}"}
    rows = [{**template, "name": name} for name in ("single-v1", "single-math-v1")]
    rows += [{**template, "name": f"{row['name']}-multi-turn", "prompt_template": "Rate as [[rating]]: {answer_2}"} for row in rows]
    (folder / "judge_prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "questions.jsonl").write_text(json.dumps({"question": "Why is the sky blue?"}) + "\n")
    extending = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
    for file in ("evolvers.py", "cells.py"):
        (folder / file).write_text(re.search(rf"`{file}`:\n\n```python\n(.*?)```", extending, re.DOTALL)[1])
    names = {"llm": PlainLLM(), "judge": PlainLLM(), "embedder": str(folder / "embedder"), "classifier": str(folder / "classifier")}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DISTILABEL_CACHE_DIR", str(folder / "cache"))
        patch.setenv("DISTILABEL_LOG_LEVEL", "WARNING")
        yield names


@pytest.mark.parametrize("number", range(len(BLOCKS)), ids=[re.findall(r'name="(\w+)"', f'{block} name="names"')[0] for block in BLOCKS])
def test_an_example_gives_rows_without_nulls_that_nothing_explains(names: dict[str, Any], number: int) -> None:
    exec(BLOCKS[number], names)
    if "pipeline.run" not in BLOCKS[number]:
        return
    result = names[BLOCKS[number].strip().splitlines()[-1].partition(" = ")[0]]
    for name, rows in ({"default": {"train": result}} if hasattr(result, "column_names") else result).items():
        table = rows["train"]
        assert len(table), name
        empty_columns = [column for column in table.column_names if all(value is None for value in table[column])]
        assert set(empty_columns) <= MAY_BE_NULL | MEASURES, (name, empty_columns)
