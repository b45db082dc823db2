"""The prompts of the judges, byte for byte as in the official tools.

All templates come from the benchmarks' own files (FastChat's judge_prompts.jsonl; arena-hard-auto's settings of 2024 or the current ones,
with the system prompts in judge_utils.py). Literals are read from a program file without running it.
"""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva_stages.core.decoding import decode_json, decode_yaml
from eva_stages.core.errors import DataError
from eva_stages.core.question_files import read_rows
from eva_stages.core.rows import Message

SETTINGS = "JUDGE_SETTINGS"


@dataclass(frozen=True)
class Case:
    """One judgment to make.

    Attributes:
        game: of Arena-Hard: 0 = the baseline is assistant A, 1 = the model is; of MT-Bench: the turn, 1 or 2.
        template: name of the official template.
    """

    game: int
    template: str
    messages: list[Message]


def chat(system: str, user: str) -> list[Message]:
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


# --- MT-Bench


def mt_bench_templates(path: Path) -> dict[str, dict[str, str]]:
    """FastChat's templates for single-answer grading, by name."""
    templates = {row["name"]: row for row in read_rows(path) if row.get("type") == "single"}
    for name in ("single-v1", "single-math-v1", "single-v1-multi-turn", "single-math-v1-multi-turn"):
        if not {"system_prompt", "prompt_template"} <= set(templates.get(name, {})):
            raise DataError(f"{path} has no judge prompt {name}; give FastChat's judge_prompts.jsonl")
    return templates


def mt_bench_cases(
    templates: Mapping[str, Mapping[str, str]], turns: Sequence[str], references: Sequence[str] | None, answers: Sequence[str | None]
) -> list[Case]:
    """Both turns of a question; the second shows the complete conversation. Questions with references have separate templates."""
    shown_answers = [answer or "" for answer in answers]
    reference_fields = {f"ref_answer_{number}": text for number, text in enumerate(references or (), start=1)}
    first = {"question": turns[0], "answer": shown_answers[0]}
    second = {"question_1": turns[0], "question_2": turns[1], "answer_1": shown_answers[0], "answer_2": shown_answers[1]}
    name = "single-math-v1" if references else "single-v1"
    return [
        _mt_bench_case(1, name, templates[name], first | reference_fields),
        _mt_bench_case(2, f"{name}-multi-turn", templates[f"{name}-multi-turn"], second | reference_fields),
    ]


def _mt_bench_case(turn: int, name: str, template: Mapping[str, str], fields: Mapping[str, str]) -> Case:
    return Case(turn, name, chat(template["system_prompt"], template["prompt_template"].format(**fields)))


# --- Arena-Hard


@dataclass(frozen=True)
class ArenaHardTemplates:
    """The user template, and the system prompt of each category ("" = of every other)."""

    user: str
    system: Mapping[str, str]

    def system_prompt(self, category: str) -> str:
        prompt = self.system.get(category, self.system.get(""))
        if prompt is None:
            raise DataError(f"there is no judge prompt for category {category!r}; categories with one: {', '.join(self.system)}")
        return prompt


def arena_hard_templates(settings: Path, system_prompts: Path | None = None) -> ArenaHardTemplates:
    """Templates from the official settings file; if it has no system prompt, with those of the other file."""
    try:
        content = _yaml(settings)
        template = content["prompt_template"]
        user = str(template if isinstance(template, str) else template[0])
    except (KeyError, TypeError, IndexError) as error:
        raise DataError(f"{settings} has no prompt_template; give arena-hard-auto's settings file of the judge") from error
    if "system_prompt" in content:
        return ArenaHardTemplates(user, {"": str(content["system_prompt"])})
    if system_prompts is None:
        raise DataError(f"{settings} has no system_prompt; give the file with the judge's system prompts too")
    return ArenaHardTemplates(user, read_system_prompts(system_prompts))


def needs_system_prompts(settings: Path) -> bool:
    """Whether the system prompts are in another file than the settings."""
    content = _yaml(settings)
    return not (isinstance(content, dict) and "system_prompt" in content)


def _yaml(settings: Path) -> Any:
    try:
        return decode_yaml(settings.read_bytes().decode("utf-8-sig"))[0]
    except ValueError as error:
        raise DataError(f"{settings} is not a settings file of arena-hard-auto's judge: {error}") from error


def read_system_prompts(path: Path) -> dict[str, str]:
    """System prompts by category: arena-hard-auto's judge_utils.py, or its `JUDGE_SETTINGS` as JSON."""
    try:
        settings = decode_json(path.read_bytes()) if path.suffix == ".json" else _literal(path.read_text(encoding="utf-8"), SETTINGS)
        return {category: str(entry["system_prompt"]) for category, entry in settings.items()}
    except (ValueError, KeyError, TypeError, AttributeError, SyntaxError, RecursionError, MemoryError) as error:
        raise DataError(f"{path} has no judge settings by category; give arena-hard-auto's judge_utils.py") from error


def _literal(source: str, name: str) -> Any:
    """The value of a module's constant, which consists of literals and of other such constants; no code runs."""
    constants: dict[str, ast.expr] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            constants[node.targets[0].id] = node.value

    class Names(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.AST:
            return constants[node.id]

    return ast.literal_eval(Names().visit(constants[name]))


def arena_hard_cases(templates: ArenaHardTemplates, category: str, question: str, answer: str | None, baseline: str | None) -> list[Case]:
    """Both games of a question."""
    cases = []
    for game in (0, 1):
        a, b = (baseline or "", answer or "") if game == 0 else (answer or "", baseline or "")
        of_2024 = {"question_1": question, "answer_1": a, "answer_2": b}
        user = templates.user.format(**of_2024, QUESTION=question, ANSWER_A=a, ANSWER_B=b)
        cases.append(Case(game, "pairwise", chat(templates.system_prompt(category), user)))
    return cases
