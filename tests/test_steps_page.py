"""Every example of docs/steps.md in a plain distilabel pipeline, with an LLM that is none of eva's. No step gives rows of None."""

import hashlib
import importlib
import json
import re
from pathlib import Path
from typing import Any

import distilabel.pipeline.base
import pytest
from distilabel.models.llms import LLM, TransformersLLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts

from eva_stages.core.parts import STATISTICS
from eva_stages.core.pipeline_patches import LoudStep, poll_often
from eva_stages.core.responding import Respond
from eva_stages.core.rows import prompt_row
from eva_stages.creator.evolving import EvolvePrompts
from eva_stages.creator.function_evolver import EvolveByFunction
from eva_stages.creator.gate import JudgeValidity
from eva_stages.evaluation.answering import AnswerTurns
from eva_stages.models.rewards import RewardResponses, VerifierReward
from tests.tiny_models import save_classifier, save_embedder, save_policy, tokenizer

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

    def generate(self, inputs: list[Any], num_generations: int = 1, suffix: str = "", missing: int = 0) -> list[Any]:
        """The last `missing` responses to the first request are missing, those to the others None."""
        counts = [num_generations - missing, *[num_generations] * (len(inputs) - 1)]
        texts = [
            [_reply(messages[-1]["content"], k) + suffix for k in range(count)] for messages, count in zip(inputs, counts, strict=True)
        ]
        for replies in texts[1:]:
            replies[num_generations - missing :] = [None] * missing
        return [{"generations": replies} for replies in texts]


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
        patch.setattr(distilabel.pipeline.base, "time", distilabel.pipeline.base.time)
        poll_often()
        yield names


@pytest.mark.parametrize("number", range(len(BLOCKS)), ids=[re.findall(r'name="(\w+)"', f'{block} name="names"')[0] for block in BLOCKS])
def test_an_example_gives_rows_without_nulls_that_nothing_explains(names: dict[str, Any], number: int) -> None:
    imports = [line for block in BLOCKS[1:number] for line in block.splitlines() if line.startswith("from ")]
    exec("\n".join([BLOCKS[0], *imports, BLOCKS[number]]), names)
    if "pipeline.run" not in BLOCKS[number]:
        return
    result = names[BLOCKS[number].strip().splitlines()[-1].partition(" = ")[0]]
    for name, rows in ({"default": {"train": result}} if hasattr(result, "column_names") else result).items():
        table = rows["train"]
        assert len(table), name
        empty_columns = [column for column in table.column_names if all(value is None for value in table[column])]
        assert set(empty_columns) <= MAY_BE_NULL | MEASURES, (name, empty_columns)


def processed_rows(step: Any, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    step.load()
    return next(step.process_applying_mappings(rows))


PROMPTS = [prompt_row([{"role": "user", "content": text}], "test") for text in ("What is 3 + 4?", "Why?")]


def test_a_missing_reply_is_null_with_its_reason_and_what_is_not_reported_is_null() -> None:
    llm = PlainLLM(generation_kwargs={"suffix": "!", "missing": 1})
    first, second = processed_rows(Respond(name="respond", llm=llm, num_generations=2), [dict(row) for row in PROMPTS])
    assert [text and text[-1] for text in first["responses"] + second["responses"]] == ["!", None, "!", None]
    assert first["finish_reasons"] == [None, "the LLM returned 1 of 2 responses"] and second["finish_reasons"] == [None, "no reply"]
    assert first["token_counts"] == [None, None] and first["response_ids"] is None and STATISTICS not in first
    failures = [
        row["failure"] for row in processed_rows(EvolvePrompts(name="evolve", llm=llm, generations=1), [dict(row) for row in PROMPTS])
    ]
    assert failures == ["the LLM returned 0 of 1 responses", "no reply"]


def test_what_a_step_cannot_do_is_refused_when_it_is_built() -> None:
    with pytest.raises(ValueError, match="num_generations is 3, and the task reads one reply per question"):
        EvolvePrompts(name="evolve", llm=PlainLLM(), num_generations=3)
    with pytest.raises(ValueError, match="llm is missing"):
        JudgeValidity(name="gate", relevant=True)
    with pytest.raises(ValueError, match="PlainLLM has no field temperature"):
        AnswerTurns(name="answer", llm=PlainLLM(), temperatures={"writing": 0.7})
    with pytest.raises(ValueError, match="there is no function 'mathematics'; built-in: math"):
        RewardResponses(name="reward", reward=VerifierReward(function="mathematics")).load()
    with pytest.raises(ValueError, match="there is no file"):
        EvolveByFunction(name="evolve", function="missing.py:evolve")


def test_a_model_of_transformers_samples_evolves_and_judges_in_a_plain_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny model with random weights: its words are nonsense, and every row says so."""
    monkeypatch.setenv("DISTILABEL_CACHE_DIR", str(tmp_path / "cache"))
    save_policy(tmp_path / "model", tokenizer(["What is three plus four?", "Why is the sky blue?"]))
    llms = [TransformersLLM(model=str(tmp_path / "model"), generation_kwargs={"max_new_tokens": 4}) for _ in range(2)]
    with Pipeline(name="transformers") as pipeline:
        LoadDataFromDicts(data=PROMPTS) >> Respond(llm=llms[0]) >> EvolvePrompts(llm=llms[1], generations=1)
    rows = pipeline.run(use_cache=False)["default"]["train"].to_list()
    assert [(row["failure"], len(row["responses"]), row["mutation"] is None) for row in rows] == [(None, 1, False)] * 2
    assert all(row["messages"][-1]["content"] or row["rejected"] == "empty" for row in rows)
    assert [row["token_counts"][0] > 0 for row in rows] == [True, True]
