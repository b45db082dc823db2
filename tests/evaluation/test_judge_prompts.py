"""The judges' prompts equal the official ones byte for byte: as built here in another way, and as stored in official files."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from eva_stages.core.errors import DataError
from eva_stages.evaluation.benchmark_questions import baseline_answers, question_rows
from eva_stages.evaluation.judge_prompts import (
    arena_hard_cases,
    arena_hard_templates,
    mt_bench_cases,
    mt_bench_templates,
    read_system_prompts,
)
from tests.conftest import EVALDATA

official = pytest.mark.skipif(not EVALDATA.is_dir(), reason="the official benchmark files are not at hand")
MT, ARENA = EVALDATA / "mtbench", EVALDATA / "arenahard"


def jsonl(path: Path) -> list[dict]:
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    return [json.loads(line) for line in text.splitlines() if line]


def filled_template(template: str, fields: dict[str, str]) -> str:
    """A template with its fields replaced one after the other; the marks of fields must not stand in the texts."""
    for name, text in fields.items():
        assert "{" + name + "}" not in text
        template = template.replace("{" + name + "}", text)
    return template


@official
def test_mt_bench_prompts_are_the_official_ones_for_all_80_questions_and_both_turns() -> None:
    templates = {row["name"]: row for row in jsonl(MT / "judge_prompts.jsonl")}
    references = {row["question_id"]: row["choices"][0]["turns"] for row in jsonl(MT / "reference_answer_gpt-4.jsonl")}
    rows = {row["question_id"]: row for row in question_rows("mt_bench", MT / "question.jsonl", MT / "reference_answer_gpt-4.jsonl")}
    ours = mt_bench_templates(MT / "judge_prompts.jsonl")
    checked_cases = 0
    for question in jsonl(MT / "question.jsonl"):
        answers = [f"Answer {turn} with [[10]] to {question['question_id']}\n" for turn in (1, 2)]
        math = question["category"] in ("math", "reasoning", "coding")
        turns = question["turns"]
        reference_fields = {f"ref_answer_{n}": text for n, text in enumerate(references[question["question_id"]], 1)} if math else {}
        first = {"question": turns[0], "answer": answers[0], **reference_fields}
        second = {"question_1": turns[0], "question_2": turns[1], "answer_1": answers[0], "answer_2": answers[1], **reference_fields}
        row = rows[str(question["question_id"])]
        cases = mt_bench_cases(ours, row["turns"], row["references"], answers)
        for case, name, fields in zip(cases, ("", "-multi-turn"), (first, second), strict=True):
            template = templates[f"single{'-math' if math else ''}-v1{name}"]
            assert case.messages[0] == {"role": "system", "content": template["system_prompt"]}
            assert case.messages[1] == {"role": "user", "content": filled_template(template["prompt_template"], fields)}
            checked_cases += 1
    assert checked_cases == 160


@official
def test_mt_bench_prompts_are_those_stored_in_the_official_judgments() -> None:
    rows = {row["question_id"]: row for row in question_rows("mt_bench", MT / "question.jsonl", MT / "reference_answer_gpt-4.jsonl")}
    templates = mt_bench_templates(MT / "judge_prompts.jsonl")
    checked_cases = 0
    for path in sorted((MT / "judgments").glob("*.gz")):
        stored_rows = {(row["model"], row["question_id"], row["turn"]): row for row in jsonl(path)}
        for (model, question, turn), row in stored_rows.items():
            if turn == 1 or (model, question, 1) not in stored_rows:
                continue
            prompt = row["user_prompt"]
            first_part, second = prompt.rsplit(f"\n\n### User:\n{rows[str(question)]['turns'][1]}\n\n### Assistant A:\n", 1)
            first = first_part.rsplit("### Assistant A:\n", 1)[1]
            second = second.removesuffix("\n\n<|The End of Assistant A's Conversation with User|>")
            cases = mt_bench_cases(templates, rows[str(question)]["turns"], rows[str(question)]["references"], [first, second])
            for case, judgment in zip(cases, (stored_rows[model, question, 1], row), strict=True):
                assert case.messages[1]["content"] == judgment["user_prompt"] and case.template == judgment["judge"][1]
                checked_cases += 1
    assert checked_cases >= 4 * 160


@official
def test_arena_hard_prompts_are_the_official_ones_for_all_questions_of_both_versions_and_both_games() -> None:
    old = yaml.safe_load((ARENA / "judge_config_v0.1_20240731.yaml").read_text())
    new = yaml.safe_load((ARENA / "arena-hard-v2.0_HEAD.yaml").read_text())
    system = json.loads((ARENA / "judge_system_prompts_HEAD.json").read_text())
    of_2024 = arena_hard_templates(ARENA / "judge_config_v0.1_20240731.yaml")
    of_today = arena_hard_templates(ARENA / "arena-hard-v0.1_HEAD.yaml", ARENA / "judge_system_prompts_HEAD.json")
    v2 = arena_hard_templates(ARENA / "arena-hard-v2.0_HEAD.yaml", ARENA / "judge_system_prompts_HEAD.json")
    checked_cases = 0
    for row in question_rows("arena_hard", ARENA / "question_v0.1.jsonl"):
        texts = (f"Baseline of {row['question_id']} {{x}} [[B>>A]]", f" answer [[A>>B]] of {row['question_id']} {{0}}\n")
        cases = arena_hard_cases(of_2024, row["category"], row["turns"][0], texts[1], texts[0])
        assert cases == arena_hard_cases(of_today, row["category"], row["turns"][0], texts[1], texts[0])
        for case, (a, b) in zip(cases, (texts, texts[::-1]), strict=True):
            user = filled_template(old["prompt_template"][0], {"question_1": row["turns"][0], "answer_1": a, "answer_2": b})
            assert [message["content"] for message in case.messages] == [old["system_prompt"], user]
            checked_cases += 1
    for row in question_rows("arena_hard", ARENA / "question_v2.0.jsonl.gz"):
        texts = (f"Baseline of {row['question_id']}", f"answer {{ANSWER}} of {row['question_id']}")
        for case, (a, b) in zip(
            arena_hard_cases(v2, row["category"], row["turns"][0], texts[1], texts[0]), (texts, texts[::-1]), strict=True
        ):
            user = filled_template(new["prompt_template"], {"QUESTION": row["turns"][0], "ANSWER_A": a, "ANSWER_B": b})
            assert [message["content"] for message in case.messages] == [system[row["category"]]["system_prompt"], user]
            checked_cases += 1
    assert checked_cases == 1000 + 1500


@official
def test_arena_hard_prompts_are_those_stored_with_the_official_judgments() -> None:
    templates = arena_hard_templates(ARENA / "judge_config_v0.1_20240731.yaml")
    questions = {row["question_id"]: row for row in question_rows("arena_hard", ARENA / "question_v0.1.jsonl")}
    baseline = baseline_answers("arena_hard", [ARENA / "model_answer" / "gpt-4-0314.jsonl.gz"])
    (path,) = (ARENA / "judgments_raw").glob("*.gz")
    checked_cases = 0
    for row in jsonl(path):
        question = questions[row["question_id"]]
        model, base = baseline[None, row["question_id"]]
        end = "\n<|The End of Assistant B's Answer|>"
        answer = row["games"][0]["user_prompt"].rsplit("<|The Start of Assistant B's Answer|>\n", 1)[1].removesuffix(end)
        cases = arena_hard_cases(templates, question["category"], question["turns"][0], answer, base)
        for case, game in zip(cases, row["games"], strict=True):
            assert case.messages[1]["content"] == game["user_prompt"] and model == "gpt-4-0314"
            checked_cases += 1
    assert checked_cases >= 80


def test_system_prompts_are_read_from_a_program_without_running_it(tmp_path: Path) -> None:
    program = tmp_path / "judge_utils.py"
    program.write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w')\n"
        'HARD = "Judge hard."\nJUDGE_SETTINGS = {"a": {"baseline": "x", "system_prompt": HARD}, "b": {"system_prompt": "Judge b."}}\n'
    )
    assert read_system_prompts(program) == {"a": "Judge hard.", "b": "Judge b."} and not (tmp_path / "ran").exists()
    program.write_text("JUDGE_SETTINGS = {'a': {'system_prompt': print('x')}}")
    with pytest.raises(DataError, match="no judge settings by category"):
        read_system_prompts(program)


@pytest.mark.parametrize(("name", "text"), [("a.yaml", "judge_model: x"), ("b.yaml", "prompt_template: x"), ("c.yaml", "[")])
def test_settings_without_templates_are_named(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=name):
        arena_hard_templates(tmp_path / name)


def test_a_question_file_of_another_benchmark_and_a_repeated_question_are_errors(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"question_id": 1, "category": "x", "turns": ["a"]}\n')
    with pytest.raises(DataError, match="not a question file of mt_bench"):
        question_rows("mt_bench", tmp_path / "q.jsonl")
    (tmp_path / "q.jsonl").write_text('{"uid": "1", "category": "x", "prompt": "a"}\n{"uid": "2", "category": "x", "prompt": " a"}\n')
    with pytest.raises(DataError, match="has the same prompt in questions 1 and 2"):
        question_rows("arena_hard", tmp_path / "q.jsonl")
    (tmp_path / "q.jsonl").write_text('{"uid": "1", "category": "x", "prompt": "a"}\n{"uid": 1, "category": "x", "prompt": "b"}\n')
    with pytest.raises(DataError, match="more than one question with id 1"):
        question_rows("arena_hard", tmp_path / "q.jsonl")


@pytest.mark.parametrize(
    ("benchmark", "row"),
    [
        ("mt_bench", {"question_id": 1, "category": "x", "turns": "Hello."}),
        ("mt_bench", {"question_id": 1, "category": "x", "turns": ["Hello.", None]}),
        ("arena_hard", {"uid": "1", "category": "x", "prompt": None}),
        ("ifeval", {"key": 1, "prompt": 5, "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}),
    ],
)
def test_a_question_without_text_is_an_error(tmp_path: Path, benchmark: str, row: dict[str, Any]) -> None:
    (tmp_path / "q.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=f"q.jsonl is not a question file of {benchmark}: .* is not a list of texts"):
        question_rows(benchmark, tmp_path / "q.jsonl")


def test_a_file_of_references_of_another_format_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(DataError, match=r"r\.jsonl is not a file of references of mt_bench"):
        question_rows("mt_bench", MT / "question.jsonl", tmp_path / "r.jsonl")
