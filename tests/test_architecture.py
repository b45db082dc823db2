"""What docs/architecture.md claims: one iteration in ten lines, the size of the method, the rooms, the glossary."""

import re
from pathlib import Path

import pytest

from eva_stages.checking.resolution import resolve
from eva_stages.core.progress import Reporter
from eva_stages.core.recipe_files import load_recipe
from eva_stages.core.run_folder import Run
from eva_stages.core.runner import execute
from pipelines.creator import creator_stages
from pipelines.prompt_stages import prompts_stage
from pipelines.solver import solver_stages
from tests.conftest import TINY, events, manifests, overrides
from tests.test_documents import ROOT, source_words
from tests.test_imports import LEVELS

DOCUMENT = (ROOT / "docs" / "architecture.md").read_text()


def section(title: str) -> str:
    """The text below a heading, up to the next one of the same level."""
    return re.split(r"^## ", DOCUMENT.split(f"\n## {title}", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def test_one_iteration_in_ten_lines_builds_what_the_command_runs(tiny_run: Path) -> None:
    """The lines find the artifacts of `eva run` with the same recipe, so they recompute nothing."""
    code = re.search(r"```python\n(.*?)```", section("One iteration in ten lines"), re.DOTALL)
    assert code is not None and len(code[1].splitlines()) == 10
    earlier_events = events(tiny_run)
    names = {
        "load_recipe": load_recipe,
        "resolve": resolve,
        "prompts_stage": prompts_stage,
        "creator_stages": creator_stages,
        "solver_stages": solver_stages,
        "Run": Run,
        "execute": execute,
        "Reporter": Reporter,
        "overrides": overrides(TINY)[1::2],
        "folder": tiny_run,
    }
    exec(code[1], names)
    (artifact,) = (tiny_run / "stages").glob("1-train-*")
    assert names["policy"] == artifact / "model"
    assert set(manifests(tiny_run)) >= {stage.label for stage in (*names["first"], *names["creator"], *names["solver"])}
    assert events(tiny_run) == earlier_events


@pytest.mark.parametrize(("place", "most_files", "most_lines"), [(0, 14, 1600), (1, 8, 1400)], ids=["paper", "beyond"])
def test_the_method_and_what_goes_beyond_the_paper_stay_small(place: int, most_files: int, most_lines: int) -> None:
    lists = section("The files that hold the method").split("\nBeyond the paper")
    paths = re.findall(r"^- `([\w/]+\.py)`", lists[place], re.MULTILINE)
    files = [next(path for path in (ROOT / name, ROOT / "eva_stages" / name) if path.is_file()) for name in paths]
    assert 0 < len(files) <= most_files
    assert sum(len(path.read_text().splitlines()) for path in files) <= most_lines


def test_the_table_of_rooms_has_the_levels_that_imports_are_tested_against() -> None:
    rows = re.findall(r"^\| (\d) \| `(\w+)/`", section("Rooms"), re.MULTILINE)
    levels = {name.removeprefix("eva_stages."): level for name, level in LEVELS.items()}
    assert {room: int(level) for level, room in rows} == levels


def test_the_glossary_has_at_most_25_terms_that_the_sources_use() -> None:
    terms = re.findall(r"^\| \*\*([\w ]+)\*\*", section("Glossary"), re.MULTILINE)
    assert 0 < len(terms) <= 25
    lower_words = {part for word in source_words() for part in word.lower().split("_")}
    assert [term for term in terms if not {word.lower() for word in term.split()} <= lower_words] == []
