"""Tasks of the real reasoning-gym: references that rebuild them, the held-out share, and a run on a tiny random policy."""

import ast
import inspect
import json
import random
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from eva_stages.checking.resolution import resolve
from eva_stages.checking.study_checks import measures
from eva_stages.core.errors import ConfigError, DataError
from eva_stages.core.packaged_files import packaged_studies
from eva_stages.core.recipe_files import load_recipe
from eva_stages.core.stage import closure
from eva_stages.creator.evolving import EvolvePrompts
from eva_stages.creator.task_prompts import seed_rows, task_questions
from eva_stages.creator.validity import reasoning_gym as confirmed_task
from eva_stages.models.task_evolver import TaskEvolver
from eva_stages.models.task_families import (
    BENCHMARK,
    RUNS_CODE,
    TRAINING,
    ImpossibleTaskError,
    Task,
    draw_task,
    read_task,
    reasoning_gym,
    side_of,
)
from pipelines.iteration import iterations
from tests.building import build_rounds, check
from tests.conftest import artifact_rows, manifests, overrides, run_eva
from tests.tiny_models import save_policy, tokenizer

FAMILIES = {
    "chain_sum": {"min_terms": 2, "max_terms": 2, "min_digits": 2, "max_digits": 2},
    "letter_counting": {"min_words": 1, "max_words": 2},
    "word_sorting": {"min_words": 2, "max_words": 2},
}


def question(row: dict) -> str:
    return row["messages"][-1]["content"]


def test_a_reference_rebuilds_its_task_and_scores_by_the_family() -> None:
    for row in seed_rows(FAMILIES, 1, 7, 30):
        answer = read_task(row["reference"]).answer
        assert reasoning_gym(row["messages"], f" {answer}\n", row["reference"]) == 1
        assert reasoning_gym(row["messages"], "none of them", row["reference"]) < 0.1
        assert len(row["messages"]) == 3 and side_of(question(row)) == TRAINING


def test_the_gate_confirms_a_task_and_nothing_else() -> None:
    first, second = seed_rows(FAMILIES, 1, 7, 2)
    task = read_task(first["reference"])
    assert confirmed_task(first["messages"], first["reference"])
    wrong_references = [
        second["reference"],
        str(task._replace(answer=f"{task.answer}0")),
        str(task._replace(family="no_family")),
        "72",
        None,
    ]
    assert not any(confirmed_task(first["messages"], reference) for reference in wrong_references)
    assert not confirmed_task(second["messages"], first["reference"])


def test_a_reference_of_another_prompt_or_version_gives_no_score() -> None:
    first, second = seed_rows(FAMILIES, 0, 7, 2)
    with pytest.raises(DataError, match="belongs to another prompt"):
        reasoning_gym(first["messages"], "7", second["reference"])
    task = read_task(first["reference"])
    with pytest.raises(DataError, match="makes another task"):
        reasoning_gym(first["messages"], "7", str(task._replace(answer=task.answer + "1")))
    with pytest.raises(DataError, match="is not a reasoning-gym task"):
        reasoning_gym(first["messages"], "7", None)


def test_no_family_runs_a_response_as_code() -> None:
    """A reference from a data set chooses the family, so none may run the response."""
    from reasoning_gym.factory import DATASETS

    with pytest.raises(DataError, match="n_queens is not allowed, because reasoning-gym runs responses"):
        reasoning_gym([], "__import__('os').abort()", str(Task("n_queens", {}, 1, "1")))
    names = {name for name, (dataset, _) in DATASETS.items() if runs_code(sys.modules[dataset.__module__])}
    own_text = {"basic_arithmetic", "bitwise_arithmetic", "number_sorting", "propositional_logic"}
    assert names - own_text == set(RUNS_CODE)


def runs_code(module: ModuleType) -> bool:
    nodes = ast.walk(ast.parse(inspect.getsource(module)))
    calls = [node.func for node in nodes if isinstance(node, ast.Call)]
    return any(getattr(call, "id", getattr(call, "attr", "")) in ("eval", "exec", "parse_expr", "sympify") for call in calls)


def test_another_version_of_the_package_makes_other_prompts_and_questions(tmp_path: Path) -> None:
    save_policy(tmp_path / "policy", tokenizer(["0123456789"]))
    recipe = load_recipe("smollm2-135m/reasoning", [f"policy.model={tmp_path / 'policy'}"])
    resolved = resolve(recipe)
    assert resolved.tasks_version == metadata.version("reasoning-gym")
    first, second = (
        {stage.label: stage.fingerprint for stage in closure([stage for part in iterations(recipe, facts) for stage in part.stages])}
        for facts in (resolved, replace(resolved, tasks_version="0.0"))
    )
    assert first.keys() == second.keys() and not set(first.values()) & set(second.values())


def test_a_longer_list_of_prompts_begins_with_the_shorter_one() -> None:
    rows = seed_rows(FAMILIES, 1, 7, 60)
    assert rows[:24] == seed_rows(FAMILIES, 1, 7, 24) and len({row["prompt_id"] for row in rows}) == 60


def test_impossible_knobs_unknown_families_and_small_families_are_told() -> None:
    with pytest.raises(ImpossibleTaskError, match="chain_sum makes no task with the knobs"):
        draw_task("chain_sum", {"min_terms": 0}, 1)
    with pytest.raises(DataError, match="is not a family of reasoning-gym; known: ab, "):
        draw_task("chain_sums", {}, 1)
    with pytest.raises(DataError, match="word_ladder is not allowed, because its tasks cannot be rebuilt in another process"):
        draw_task("word_ladder", {}, 1)
    with pytest.raises(DataError, match=r"chain_sum has only \d+ tasks"):
        seed_rows({"chain_sum": {"min_terms": 1, "max_terms": 1, "min_digits": 1, "max_digits": 1}}, 0, 7, 11)


def test_evolutions_over_generations_keep_their_own_references_and_never_reach_the_benchmark() -> None:
    inputs = seed_rows(FAMILIES, 1, 7, 30)
    step = EvolvePrompts(name="evolve", llm=TaskEvolver(), method="turn_knob", generations=6)
    step.load()
    rows = next(step.process(inputs))
    questions = task_questions(FAMILIES, 1, 60)
    assert {side_of(question(row)) for row in questions} == {BENCHMARK}
    usable = [row for row in rows if row["rejected"] is None]
    assert len(rows) == 180 and len(usable) > 120 and {row["rejected"] for row in rows} <= {None, "impossible_knobs", "unchanged"}
    tasks = {row["prompt_id"]: read_task(row["reference"]) for row in [*inputs, *usable]}
    for row in usable:
        assert reasoning_gym(row["messages"], tasks[row["prompt_id"]].answer, row["reference"]) == 1
        assert tasks[row["parent_id"]].family == tasks[row["prompt_id"]].family
        assert side_of(question(row)) == TRAINING


def test_the_arms_of_the_packaged_study_are_valid_and_share_the_base_round(tmp_path: Path) -> None:
    save_policy(tmp_path / "policy", tokenizer(["0123456789"]))
    (study_file,) = (file for file in packaged_studies() if file.name == "reasoning")
    study = yaml.safe_load(study_file.text)
    labels_by_arm = {}
    for arm, changes in study["arms"].items():
        settings = {**changes, "policy.model": str(tmp_path / "policy")}
        recipe = load_recipe(study["base"], [f"{name}={json.dumps(value)}" for name, value in settings.items()])
        check(recipe)
        assert study["measure"] in measures(recipe)
        stages = closure([stage for iteration in build_rounds(recipe) for stage in iteration.stages])
        labels_by_arm[arm] = {stage.fingerprint: stage.label for stage in stages}
    shared_labels = {labels_by_arm["eva"][identity] for identity in set.intersection(*map(set, labels_by_arm.values()))}
    assert {"0-prompts", "0-train", "0-base-reasoning-gym-score", "0-eval-reasoning-gym-score"} <= shared_labels
    assert "1-respond" not in shared_labels and {"1-creator-respond", "1-inform"} <= set(labels_by_arm["uniform"].values())


def test_a_recipe_that_mixes_kinds_is_refused_with_the_fix(tmp_path: Path) -> None:
    save_policy(tmp_path / "policy", tokenizer(["0123456789"]))
    settings = {
        "policy.model": str(tmp_path / "policy"),
        "creator.evolve.method": "evol_instruct",
        "creator.evolve.feedback": {},
        "reward.function": "math",
        "prompts.families": {"chain_sum": {"min_terms": 0}},
    }
    recipe = load_recipe("smollm2-135m/reasoning", [f"{name}={json.dumps(value)}" for name, value in settings.items()])
    with pytest.raises(ConfigError) as error:
        check(recipe)
    faults = "\n".join(error.value.faults)
    for text in ("method evol_instruct and generator kind reasoning_gym do not fit", "leave feedback and multi_shot out"):
        assert text in faults
    assert "math cannot read the references" in faults and "prompts.families: chain_sum makes no task" in faults
    assert faults.count("chain_sum makes no task") == 1


def test_the_whole_loop_on_a_tiny_random_policy(tmp_path: Path) -> None:
    rng = random.Random(0)
    save_policy(tmp_path / "policy", tokenizer("".join(rng.choices("0123456789", k=30)) for _ in range(200)))
    families = {"letter_counting": {"min_words": 1, "max_words": 2}, "count_bits": {"min_n": 1, "max_n": 255}}
    run = tmp_path / "run"
    settings = {
        "iterations": 2,
        "policy.model": str(tmp_path / "policy"),
        "policy.generator.max_new_tokens": 4,
        "prompts.families": families,
        "prompts.size": 16,
        "creator.evolve.generations": 2,
        "evaluation.benchmarks.0.families": families,
        "evaluation.benchmarks.0.questions": 8,
        "evaluation.benchmarks.0.samples": 2,
        "solver.training.max_length": 1024,
        "limits.empty": 1,
    }
    run_eva("run", "smollm2-135m/reasoning", "--run-dir", str(run), *overrides(settings))
    seeds, questions = artifact_rows(run, "0-prompts"), artifact_rows(run, "0-reasoning-gym-questions")
    assert {read_task(row["reference"]).family for row in seeds} == set(families) and len(seeds) == 16 and len(questions) == 8
    held_out_texts = {question(row) for row in questions}
    for label in ("0-prompts", "1-mix", "2-mix"):
        rows = artifact_rows(run, label)
        assert not held_out_texts & {question(row) for row in rows}
        assert all(reasoning_gym(row["messages"], read_task(row["reference"]).answer, row["reference"]) == 1 for row in rows)
    assert {row["origin"] for row in artifact_rows(run, "2-mix")} == {"evolved", "buffer"}
    stage_manifests = manifests(run)
    for label in ("0-reward", "1-reward", "2-reward"):
        assert not stage_manifests[label]["failures"] and not stage_manifests[label]["counts"].get("unscored")
    scores = stage_manifests["2-eval-reasoning-gym-score"]["scores"]
    assert 0 <= scores["score"]["value"] <= 100 and scores["greedy"]["n"] == scores["score"]["n"] == 8
    table = json.loads(run_eva("eval", "table", str(run), "--json").stdout)
    assert "reasoning-gym" in json.dumps(table)
