"""The generated reference page of recipes."""

import re
from pathlib import Path

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.recipe_files import recipe_of_mapping
from eva_stages.core.written_fields import read_fields
from eva_stages.publishing.recipe_page import COMMAND, INTRODUCTION, PAGE, recipe_page


def headings(text: str) -> list[str]:
    return re.findall(r"^##+ (.*)$", text, re.MULTILINE)


def test_the_page_is_that_of_the_code() -> None:
    is_current = PAGE.read_text() == recipe_page()
    assert is_current, f"{PAGE} is stale; rewrite it with {COMMAND}"


def test_every_link_of_the_page_has_one_heading() -> None:
    page = recipe_page()
    anchors = [re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-") for heading in headings(page)]
    assert len(anchors) == len(set(anchors)) and set(re.findall(r"\]\(#([^)]+)\)", page)) <= set(anchors)


def test_fields_are_shown_with_values_defaults_and_meanings() -> None:
    page = recipe_page()
    assert {"creator.evolve", "solver.training", "evaluation.benchmarks.0 (kind ifeval)", "runtime.engine (kind ray)"} <= {*headings(page)}
    assert "| `fraction` | number > 0 and ≤ 1 | `0.25` | Share of the prompts that are selected to be evolved. |" in page
    assert "| `reward_gap`, `reward_max_minus_mean`" in page.replace("`metric` ", "") and "as in `FILE.py:NAME`" in page
    assert "| `start` | `incremental`, `scratch` | `incremental` |" in page and "&lt;think>" in page
    assert all(f"| `{field}` |" in page for field in Recipe.model_fields)


def test_the_example_of_the_page_is_a_recipe(tmp_path: Path) -> None:
    text = INTRODUCTION.partition("```yaml\n")[2].partition("```")[0]
    recipe = recipe_of_mapping(read_fields("example", text, tmp_path, "").data, "example")
    assert recipe.solver.loss.kind == "dpo" and recipe.solver.loss.beta == 0.1 and recipe.solver.training.batch_size == 64
