"""What a judge is shown, byte for byte as the official tools show it.

The templates are read from the benchmarks' own files (FastChat's judge_prompts.jsonl; arena-hard-auto's settings of 2024 or of today, with
the system prompts in judge_utils.py); none stands here. A program file is only read for the literals in it, never run. An answer that is
missing is shown as an empty one, so that a model gains nothing by not answering.
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
    """One thing to judge.

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
    found = {row["name"]: row for row in read_rows(path) if row.get("type") == "single"}
    for name in ("single-v1", "single-math-v1", "single-v1-multi-turn", "single-math-v1-multi-turn"):
        if not {"system_prompt", "prompt_template"} <= set(found.get(name, {})):
            raise DataError(f"{path} has no judge prompt {name}; give FastChat's judge_prompts.jsonl")
    return found


def mt_bench_cases(
    templates: Mapping[str, Mapping[str, str]], turns: Sequence[str], references: Sequence[str] | None, answers: Sequence[str | None]
) -> list[Case]:
    """Both turns of a question; the second one's judge sees the whole conversation. Questions with references use those."""
    given = [answer or "" for answer in answers]
    worked = {f"ref_answer_{number}": text for number, text in enumerate(references or (), start=1)}
    first = {"question": turns[0], "answer": given[0]}
    second = {"question_1": turns[0], "question_2": turns[1], "answer_1": given[0], "answer_2": given[1]}
    name = "single-math-v1" if references else "single-v1"
    return [
        _mt_bench_case(1, name, templates[name], first | worked),
        _mt_bench_case(2, f"{name}-multi-turn", templates[f"{name}-multi-turn"], second | worked),
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
        found = self.system.get(category, self.system.get(""))
        if found is None:
            raise DataError(f"no judge prompt for questions of category {category!r}; there are some for {', '.join(self.system)}")
        return found


def arena_hard_templates(settings: Path, system_prompts: Path | None = None) -> ArenaHardTemplates:
    """Templates from the official settings file, and from the file with system prompts where the former has none."""
    try:
        told = _yaml(settings)
        template = told["prompt_template"]
        user = str(template if isinstance(template, str) else template[0])
    except (KeyError, TypeError, IndexError) as error:
        raise DataError(f"{settings} has no prompt_template; give arena-hard-auto's settings file of the judge") from error
    if "system_prompt" in told:
        return ArenaHardTemplates(user, {"": str(told["system_prompt"])})
    if system_prompts is None:
        raise DataError(f"{settings} has no system_prompt; give the file with the judge's system prompts too")
    return ArenaHardTemplates(user, read_system_prompts(system_prompts))


def needs_system_prompts(settings: Path) -> bool:
    """Whether a settings file leaves the system prompts to another file."""
    told = _yaml(settings)
    return not (isinstance(told, dict) and "system_prompt" in told)


def _yaml(settings: Path) -> Any:
    try:
        return decode_yaml(settings.read_bytes().decode("utf-8-sig"))[0]
    except ValueError as error:
        raise DataError(f"{settings} is no settings file of arena-hard-auto's judge: {error}") from error


def read_system_prompts(path: Path) -> dict[str, str]:
    """System prompts by category: arena-hard-auto's judge_utils.py, or its `JUDGE_SETTINGS` as JSON."""
    try:
        settings = decode_json(path.read_bytes()) if path.suffix == ".json" else _literal(path.read_text(encoding="utf-8"), SETTINGS)
        return {category: str(entry["system_prompt"]) for category, entry in settings.items()}
    except (ValueError, KeyError, TypeError, AttributeError, SyntaxError, RecursionError, MemoryError) as error:
        raise DataError(f"{path} holds no judge settings by category; give arena-hard-auto's judge_utils.py") from error


def _literal(source: str, name: str) -> Any:
    """The value of a module's constant that is made of literals and of other such constants; nothing is run."""
    known: dict[str, ast.expr] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            known[node.targets[0].id] = node.value

    class Names(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.AST:
            return known[node.id]

    return ast.literal_eval(Names().visit(known[name]))


def arena_hard_cases(templates: ArenaHardTemplates, category: str, question: str, answer: str | None, baseline: str | None) -> list[Case]:
    """Both games of a question."""
    made = []
    for game in (0, 1):
        a, b = (baseline or "", answer or "") if game == 0 else (answer or "", baseline or "")
        of_2024 = {"question_1": question, "answer_1": a, "answer_2": b}
        user = templates.user.format(**of_2024, QUESTION=question, ANSWER_A=a, ANSWER_B=b)
        made.append(Case(game, "pairwise", chat(templates.system_prompt(category), user)))
    return made
