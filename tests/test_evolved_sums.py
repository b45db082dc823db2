"""Sums in words with references, end to end: an evolver in a file makes harder ones, the verifier `math` checks, a majority stands in."""

import json
import random
from collections import Counter
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from eva_stages.checking.resolution import resolve
from eva_stages.core.progress import Reporter
from eva_stages.core.recipe_files import load_recipe
from eva_stages.core.rows import last_user_text
from eva_stages.core.run_folder import Run
from eva_stages.core.runner import execute
from eva_stages.core.stage import closure
from eva_stages.models.majority import VOTING, majority
from eva_stages.models.verifiers import math
from eva_stages.publishing.report.solver_section import solver
from eva_stages.views.history import read_history
from eva_stages.views.run_summary import summary
from eva_stages.views.summary_tables import summary_tables
from pipelines.creator import creator_stages
from pipelines.prompt_stages import prompts_stage
from tests.building import check
from tests.conftest import artifact_rows, manifests
from tests.tiny_models import save_policy, tokenizer

EVOLVER = '''
def longer_sum(text, reference, rng):
    """A sum with one more term; none without a reference."""
    if reference is None:
        return f"{text[:-1]} + 1?", None, "without_reference"
    term = int(rng.integers(2, 20))
    return f"{text[:-1]} + {term}?", str(int(reference) + term), "longer_sum"
'''
SUMS = 16


def right_answer(row: dict) -> int:
    return sum(map(int, last_user_text(row["messages"]).removeprefix("What is ").removesuffix("?").split(" + ")))


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first iteration's creator on sums, of which every fourth has no reference, with a random policy that often repeats itself."""
    folder = tmp_path_factory.mktemp("sums")
    rng = random.Random(0)
    save_policy(folder / "policy", tokenizer("".join(rng.choices("0123456789", k=30)) for _ in range(200)))
    sums = [{"prompt": f"What is {n} + {2 * n + 1}?", "answer": str(3 * n + 1) if n % 4 else None} for n in range(SUMS)]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sums))
    (folder / "evolvers.py").write_text(EVOLVER)
    settings = {
        "prompts": {"kind": "file", "path": str(folder / "sums.jsonl"), "reference_column": "answer"},
        "trust_code": True,
        "policy": {
            "model": str(folder / "policy"),
            "generator": {"kind": "transformers", "temperature": 1.0, "top_p": 1.0, "top_k": 2, "max_new_tokens": 1},
        },
        "reward": {"kind": "verifier", "function": "math", "missing_reference": "majority"},
        "creator.responses": 4,
        "creator.selection.fraction": 0.75,
        "creator.evolve.generations": 2,
        "creator.evolve.returns": "prompt_and_reference",
        "creator.evolve.generator": {"kind": "function", "function": f"{folder}/evolvers.py:longer_sum"},
        "creator.curate.near_duplicate": None,
        "creator.curate.admit": {"fraction": 1},
        "evaluation.benchmarks": [],
        "limits.unscored": 1,
        "limits.empty": 1,
        "runtime.rows_per_part": 5,
    }
    recipe = load_recipe("quickstart", [f"{name}={json.dumps(value)}" for name, value in settings.items()])
    check(recipe)
    resolved = resolve(recipe)
    policy = resolved.policy(recipe)
    assert policy is not None
    stages = creator_stages(recipe, resolved, 1, prompts_stage(recipe, resolved), [], policy)
    (folder / "run").mkdir()
    run = Run(folder / "run")
    with run.lock():
        execute(run, stages, Reporter())
        run.plan(closure(stages))
    return run.root


def test_evolved_sums_are_harder_and_every_reference_is_the_right_answer(run_folder: Path) -> None:
    evolutions = artifact_rows(run_folder, "1-evolve")
    parents = {row["prompt_id"]: row for row in [*artifact_rows(run_folder, "0-prompts"), *evolutions]}
    fates = Counter(row["rejected"] for row in evolutions)
    assert fates == {None: fates[None], "no_prompt_and_reference": 24 - fates[None]} and 12 <= fates[None] < 24
    for row in evolutions:
        assert row["rejected"] or right_answer(row) == int(row["reference"]) > right_answer(parents[row["parent_id"]])
    for label in ("1-curate", "1-admit", "1-mix"):
        rows = [row for row in artifact_rows(run_folder, label) if row["generation"]]
        assert rows and all(right_answer(row) == int(row["reference"]) for row in rows)


def test_rewards_are_the_verifier_s_against_the_reference_that_their_row_names(run_folder: Path) -> None:
    sources: Counter[str] = Counter()
    for stage, prompts in (("creator", "0-prompts"), ("admit", "1-curate")):
        rows = zip(*(artifact_rows(run_folder, label) for label in (prompts, f"1-{stage}-respond", f"1-{stage}-reward")), strict=True)
        for prompt, responses, rewards in rows:
            vote = None if prompt["reference"] else majority(responses["responses"], VOTING["math"])
            reference, source = prompt["reference"] or vote, rewards["reference_source"]
            own_source = "evolver" if prompt["generation"] else "given"
            assert source == (own_source if prompt["reference"] else vote and "majority") and rewards["majority_reference"] == vote
            assert rewards["rewards"] == [reference and math([], text, reference) for text in responses["responses"]]
            sources[f"{stage} {source or 'missing'}"] += 1
    counts = {stage: manifests(run_folder)[f"1-{stage}-reward"]["counts"] for stage in ("creator", "admit")}
    for name, count in sources.items():
        stage, source = name.split()
        assert counts[stage][f"references_{source}"] == count
    assert sources["creator given"] == 12 and sources["creator majority"] > 0 and sources["admit evolver"] > 8


def test_summary_and_report_count_the_sources_of_references(run_folder: Path) -> None:
    history = read_history(Run(run_folder))
    (entry,) = (entry for entry in summary(history)["iterations"] if entry["iteration"] == 1)
    assert set(entry["references"]) == {"creator-reward", "admit-reward"} and entry["references"]["creator-reward"]["given"] == 12
    with StringIO() as text:
        Console(file=text, width=200).print(summary_tables(summary(history)))
        assert "iteration 1: creator-reward: references: given 12, majority" in text.getvalue()
    (table,) = (table for table in solver(history).tables if table.title.startswith("References"))
    assert table.rows[0][:3] == [1, "creator-reward", 12] and len(table.rows) == 2
