"""Every example of docs/extending.md, extracted from the page and run by the steps that a recipe runs it with."""

import json
import re
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from distilabel.pipeline import Pipeline

from eva_stages.core.config.function_fields import (
    CELL,
    EVOLVE_METHOD,
    EVOLVER,
    FILTER,
    LOSS,
    METRIC,
    SCORER,
    SELECTION,
    VERIFIER,
    function_choices,
)
from eva_stages.core.errors import ConfigError, DataError
from eva_stages.core.named_functions import FunctionCode, known_functions
from eva_stages.core.parts import STATISTICS
from eva_stages.core.recipe_files import load_recipe, recipe_text
from eva_stages.core.rows import SCHEMAS, prompt_id, prompt_row
from eva_stages.core.stage import load_attribute
from eva_stages.creator.archive import UpdateArchive
from eva_stages.creator.curation import Curate
from eva_stages.creator.evolving import EvolvePrompts
from eva_stages.creator.function_calls import check_metric
from eva_stages.creator.function_evolver import EvolveByFunction
from eva_stages.creator.gate import JudgeValidity
from eva_stages.creator.informativeness import Admit, Informativeness
from eva_stages.creator.knobs import OF_REFERENCES
from eva_stages.creator.selection import Select
from eva_stages.lettercraft.player import LettercraftLLM
from eva_stages.models.rewards import Conversation, VerifierReward
from eva_stages.solver.train import trainer_target
from tests.building import check
from tests.conftest import function_code, manifests, run_eva
from tests.solver.jobs import job, read_metrics, save_models, save_pairs

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
SECTION = re.compile(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"`([\w.]+)`:\n\n```(?:python|json)\n(.*?)```", re.DOTALL)
EXAMPLES = {title: text for title, text in SECTION.findall(PAGE) if "```yaml" in text}
INSTRUCTIONS = ("Take planet, reverse it.", "Take cab, sort its letters.", "Take lemon, drop its last letter, then drop its first letter.")


def merge_sections(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A recipe with the sections of an example, whose other fields stay."""
    merged_sections = {
        name: merge_sections(base[name], value)
        for name, value in changes.items()
        if isinstance(value, dict) and isinstance(base.get(name), dict)
    }
    return {**base, **changes, **merged_sections} if "kind" not in changes else changes


def example(folder: Path, *titles: str) -> Path:
    """The files of examples, and the quickstart with their lines as a recipe beside them."""
    recipe = yaml.safe_load(recipe_text("quickstart")[1])
    for title in titles:
        for name, content in FILE.findall(EXAMPLES[title]):
            (folder / name).write_text(content)
        recipe = merge_sections(recipe, yaml.safe_load(re.findall(r"```yaml\n(.*?)```", EXAMPLES[title], re.DOTALL)[0]))
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "trust_code": True}))
    return folder / "recipe.yaml"


def function_of(recipe: Path) -> FunctionCode:
    """The one function in a file that a recipe names."""
    (choice,) = (choice for choice in function_choices(load_recipe(str(recipe))) if ":" in choice.choice)
    return function_code(*choice.choice.rsplit(":", 1))


def reward_table(count: int, responses: int = 4) -> pa.Table:
    rewards = np.random.default_rng(0).random((count, responses))
    ids = [prompt_id([{"role": "user", "content": str(number)}]) for number in range(count)]
    return pa.table({"prompt_id": ids, "rewards": pa.array(rewards.tolist())})


def test_the_page_has_an_example_of_at_most_ten_lines_for_each_part() -> None:
    assert list(EXAMPLES) == [
        "Metric",
        "Selection",
        "Evolve method",
        "Evolver",
        "Filter",
        "Validity",
        "Cell",
        "Loss",
        "Reward",
        "Benchmark",
    ]
    for text in EXAMPLES.values():
        assert len(FILE.findall(text)[0][1].splitlines()) <= 10


@pytest.mark.parametrize("title", EXAMPLES)
def test_every_example_passes_validation_and_needs_consent(tmp_path: Path, title: str) -> None:
    recipe = example(tmp_path, title)
    check(load_recipe(str(recipe)))
    with pytest.raises(ConfigError, match="--trust"):
        check(load_recipe(str(recipe), ["trust_code=false"]))


def test_the_metric_gives_the_weights_and_admits(tmp_path: Path) -> None:
    metric, table = function_of(example(tmp_path, "Metric")), reward_table(8)
    output, _ = Informativeness(name="inform", metric=metric).transform(table)
    share = (np.array(table["rewards"].to_pylist()) > 0.5).mean(axis=1)
    assert output["learnability"].to_pylist() == pytest.approx(share * (1 - share)) and "reward_gap" in output.column_names
    assert np.argmax(output["weight"]) == np.argmax(share * (1 - share))
    prompts = pa.Table.from_pylist(
        [{**prompt_row([{"role": "user", "content": name}], "test"), "prompt_id": name} for name in table["prompt_id"].to_pylist()],
        schema=SCHEMAS["prompts"],
    )
    admitted_rows, counts = Admit(name="admit", metric=metric, fraction=0.25).transform(prompts, table)
    assert counts["admitted"] == len(admitted_rows) == 2


def test_the_selection_draws(tmp_path: Path) -> None:
    select = Select(name="select", kind=function_of(example(tmp_path, "Selection")), fraction=0.25, seed=1)
    info_of, _ = Informativeness(name="inform").transform(reward_table(40))
    output, _ = select.transform(info_of)
    weights = dict(zip(info_of["prompt_id"].to_pylist(), info_of["weight"].to_pylist(), strict=True))
    assert len(output) == 10 and all(weights[name] >= np.median(list(weights.values())) for name in output["prompt_id"].to_pylist())


def test_the_method_evolves(tmp_path: Path) -> None:
    step = EvolvePrompts(name="evolve", llm=LettercraftLLM(), method=function_of(example(tmp_path, "Evolve method")), generations=2)
    step.load()
    rows = next(step.process([prompt_row([{"role": "user", "content": INSTRUCTIONS[0]}], "test") for _ in range(4)]))
    assert len(rows) == 8 and all(row["mutation"].startswith("constrain_") for row in rows)
    assert any(row["rejected"] is None and row["messages"][0]["content"].count(", ") == 2 for row in rows)


def test_the_evolver_returns_references(tmp_path: Path) -> None:
    step = EvolveByFunction(name="evolve", function=function_of(example(tmp_path, "Evolver")), generations=3)
    step.load()
    rows = next(step.process([prompt_row([{"role": "user", "content": "What is 3 + 4?"}], "test", reference="7")]))
    assert [eval(row["messages"][0]["content"][8:-1]) for row in rows] == [int(row["reference"]) for row in rows] and len(rows) == 3


def test_the_filter_leaves_prompts_out_and_counts_them(tmp_path: Path) -> None:
    rows = [prompt_row([{"role": "user", "content": text}], "test") for text in INSTRUCTIONS]
    evolutions = pa.Table.from_pylist([{**row, "rejected": None} for row in rows], schema=SCHEMAS["evolutions"])
    curate = Curate(name="curate", near_duplicate=None, filters=[function_of(example(tmp_path, "Filter"))])
    output, counts = curate.transform(evolutions, evolutions.slice(0, 0).select(SCHEMAS["prompts"].names))
    assert [row["messages"][0]["content"] for row in output.to_pylist()] == list(INSTRUCTIONS[:2])
    assert counts == {"evolved": 3, "kept": 2, "duplicate": 0, "near_duplicate": 0, "drops_letters": 1}


def test_the_validity_decides_or_fails_like_a_call(tmp_path: Path) -> None:
    with Pipeline(name="here"):
        step = JudgeValidity(name="verdicts", answerable=function_of(example(tmp_path, "Validity")))
    step.load()
    texts = (INSTRUCTIONS[0], "Take incomprehensible, reverse it.", "Word")
    rows = next(step.process([prompt_row([{"role": "user", "content": text}], "test") for text in texts]))
    assert [row["valid"] for row in rows] == [True, False, None] and [row[STATISTICS].get("failed", 0) for row in rows] == [0, 0, 1]


def test_the_cells_sort_prompts(tmp_path: Path) -> None:
    rows = [prompt_row([{"role": "user", "content": "word " * count}], "test") for count in (3, 12, 17)]
    prompts = pa.Table.from_pylist(rows, schema=SCHEMAS["prompts"])
    info = pa.table({"prompt_id": prompts["prompt_id"], "weight": [0.5, 0.1, 1.0], "uniform": [1.0] * 3})
    archive, _ = UpdateArchive(name="archive", cell=function_of(example(tmp_path, "Cell"))).transform(prompts, info)
    assert archive["cell"].to_pylist() == ["0 words or more", "10 words or more", "10 words or more"]
    assert archive["rank"].to_pylist() == [0, 1, 0]


def test_the_loss_trains(tmp_path: Path) -> None:
    recipe = load_recipe(str(example(tmp_path, "Loss")))
    code = function_of(tmp_path / "recipe.yaml")
    policy = save_models(tmp_path)["policy"]
    folders = {"policy": policy, "reference": policy, "pairs": save_pairs(tmp_path / "pairs")}
    settings = job(tmp_path / "job", folders, "custom", loss=recipe.solver.loss.model_dump(exclude={"kind"}), loss_function=code)
    load_attribute(trainer_target("custom"))(settings)
    steps = read_metrics(settings.work / "metrics.jsonl")
    assert steps[0]["loss"] == pytest.approx(np.log(1 + np.exp(0.3)), abs=1e-4), "policy and reference are equal at the first step"
    assert steps[0]["margin"] == 0 != steps[-1]["margin"]


def test_the_reward_scores(tmp_path: Path) -> None:
    reward = VerifierReward(function=function_of(example(tmp_path, "Reward")))
    reward.load()
    assert [score.value for score in reward.score([Conversation([], text) for text in ("four", "", "x")])] == [0.25, None, 1]


def test_functions_of_all_parts_work_in_one_run(tmp_path: Path) -> None:
    titles = [title for title in EXAMPLES if title not in ("Reward", "Evolver", "Cell")]  # an archive takes the place of a selection
    recipe = example(tmp_path, *titles)
    settings = {
        "iterations": 1,
        "prompts.size": 16,
        "creator.responses": 2,
        "solver.responses": 2,
        "solver.training.batch_size": 4,
        "solver.training.warmup_ratio": 0,
        "health.answers": 0,
    }
    changes = [word for name, value in settings.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    run_eva("run", str(recipe), "--run-dir", str(tmp_path / "run"), *changes)
    stages = manifests(tmp_path / "run")
    assert stages["1-curate"]["counts"]["drops_letters"] > 0
    score = stages["1-eval-custom-words-score"]["scores"]
    assert score["official"]["n"] == 3 and 0 <= score["score"]["value"] <= 100
    sources = {path.name for path in (tmp_path / "run" / "functions").glob("*/*.py")}
    assert sources == {name for title in titles for name, _ in FILE.findall(EXAMPLES[title]) if name.endswith(".py")}


@pytest.mark.parametrize("field", [METRIC, CELL, SELECTION, EVOLVE_METHOD, EVOLVER, LOSS, FILTER, VERIFIER, SCORER])
def test_every_function_of_a_field_exists_and_passes_the_field_s_check(field: Any) -> None:
    recipe = load_recipe("quickstart")
    for name, function in known_functions(field).items():
        if name not in (*OF_REFERENCES, "learnability"):  # these take a task of reasoning-gym, or rewards of 0 and 1
            load_attribute(field.check)(function, recipe)


@pytest.mark.parametrize("responses", [3, 6])
def test_a_metric_by_response_or_of_fewer_prompts_is_refused_for_any_number_of_responses(responses: int) -> None:
    recipe = load_recipe("quickstart", [f"creator.responses={responses}"])
    for metric in (lambda rewards: rewards.mean(axis=0), lambda rewards: rewards.mean(axis=1)[:3]):
        with pytest.raises(DataError, match="return one number per prompt"):
            check_metric(metric, recipe)


@pytest.mark.parametrize(
    ("title", "source", "message"),
    [
        (
            "Metric",
            "def learnability(rewards): return rewards.std() / 0 * rewards[0]",
            r"returned float64 of shape \(6,\) for rewards of shape \(10, 6\)",
        ),
        ("Metric", "def learnability(rewards): return rewards.mean(1) + 1j", "returned complex128 of shape"),
        ("Metric", "def learnability(rewards): raise SystemExit(0)", "the metric raised SystemExit: 0"),
        (
            "Selection",
            "calls = []\ndef upper_half(weights, draws, size): return [calls.append(0) or (len(calls) + k) % 8 for k in range(size)]",
            "two calls with the same arguments returned",
        ),
        ("Filter", "def drops_letters(text): return 'cost_usd'", "returned 'cost_usd' for the prompt"),
        (
            "Loss",
            "def dpo_with_margin(pairs): return pairs.policy_chosen, {'loss': 1.0}",
            "returned a metric named 'loss'; a name is a text without /",
        ),
        ("Reward", "def brevity(messages, response, reference=None): exit(0)", "raised SystemExit: 0"),
        ("Metric", "def learnability(rewards): return 1 / rewards.max(axis=1)", "not finite for 1 of 10 prompts"),
        ("Metric", "def learnability(rewards): return nothing", "raised NameError"),
        ("Metric", "def learnability(rewards, n): return rewards.mean(1)", r"cannot be called with \(rewards\)"),
        ("Selection", "def upper_half(weights, draws, size): return [0] * size", "return 3 different indices from 0 to 7"),
        ("Selection", "def upper_half(weights, draws, size): return weights[:size]", "returned float64"),
        ("Evolve method", "def constrain(text, rng): return text", "return two texts"),
        ("Filter", "def drops_letters(text): return len(text) > 3", "returned True for the prompt"),
        (
            "Loss",
            "def dpo_with_margin(pairs): return pairs.policy_chosen.mean(), {}",
            r"returned shape \(\); return a tensor of shape \(3,\)",
        ),
        ("Loss", "def dpo_with_margin(pairs): return pairs.policy_chosen.log(), {}", "not finite"),
        ("Loss", "def dpo_with_margin(pairs): return pairs.policy_chosen", "raised ValueError"),
        ("Reward", "def brevity(messages, response, reference=None): return 'good'", "expected a number"),
        ("Reward", "def brevity(messages, response, reference=None): return respons", "NameError"),
        ("Benchmark", "def exact(messages, response, reference): return 5", "expected a number from 0 to 1"),
    ],
)
def test_validation_names_the_field_and_what_to_return(tmp_path: Path, title: str, source: str, message: str) -> None:
    recipe = example(tmp_path, title)
    (place, choice, _) = next(choice for choice in function_choices(load_recipe(str(recipe))) if ":" in choice.choice)
    Path(choice.rpartition(":")[0]).write_text(source)
    with pytest.raises(ConfigError, match=rf"{re.escape(place)}: {re.escape(choice)}.*{message}"):
        check(load_recipe(str(recipe)))


def test_what_a_function_prints_is_not_on_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = example(tmp_path, "Filter")
    (tmp_path / "filters.py").write_text("print('import')\ndef drops_letters(text): print('call')\n")
    check(load_recipe(str(recipe)))
    output = capsys.readouterr()
    assert not output.out and {"import", "call"} <= set(output.err.split())


def test_a_method_that_fails_leaves_a_null_with_the_reason_and_the_other_prompts_evolve(tmp_path: Path) -> None:
    recipe = example(tmp_path, "Evolve method")
    source = (tmp_path / "methods.py").read_text()
    (tmp_path / "methods.py").write_text(source.replace("    kind =", "    if 'cab' in text:\n        raise KeyError('cab')\n    kind ="))
    step = EvolvePrompts(name="evolve", llm=LettercraftLLM(), method=function_of(recipe), generations=1)
    step.load()
    first, second = next(step.process([prompt_row([{"role": "user", "content": text}], "test") for text in INSTRUCTIONS[:2]]))
    assert first["failure"] is None and second["rejected"] == "failed" and second["failure"] == "the method raised KeyError: 'cab'"
    assert second[STATISTICS]["failed"] == 1 and second["mutation"] == "constrain"


def test_a_filter_that_fails_during_a_run_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "filters.py").write_text("def drops_letters(text):\n    return 1 / (len(text) - 24)\n")
    row = {**prompt_row([{"role": "user", "content": INSTRUCTIONS[0]}], "test"), "rejected": None}
    evolutions = pa.Table.from_pylist([row], schema=SCHEMAS["evolutions"])
    curate = Curate(name="curate", filters=[function_code(tmp_path / "filters.py", "drops_letters")])
    with pytest.raises(DataError, match=r"the filter raised ZeroDivisionError.*Take planet"):
        curate.transform(evolutions)


def test_a_score_outside_the_unit_interval_is_null(tmp_path: Path) -> None:
    (tmp_path / "scores.py").write_text("def length(messages, response, reference):\n    return len(response) / 4\n")
    reward = VerifierReward(function=function_code(tmp_path / "scores.py", "length"), in_unit=True)
    reward.load()
    good, bad = reward.score([Conversation([], "abc"), Conversation([], "abcdefgh")])
    assert good.value == 0.75 and bad.value is None and bad.failure == "the function returned 2; expected a number from 0 to 1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ["creator.metric=reward_gab"],
            "creator.metric: is 'reward_gab'; known: reward_gap, .*, learnability, or a function in a Python file.*Did",
        ),
        (
            ["creator.curate.filters=[short]"],
            r"creator.curate.filters: is 'short'; expected a function in a Python file, as in functions.py",
        ),
        (["creator.metric=metrics.py:weight"], "the name weight is reserved; rename the function"),
        (["creator.metric=metrics.py:nothing"], "creator.metric: there is no file .*metrics.py"),
        (["reward={kind: microworld}"], "reward.kind: is 'microworld'; known: lettercraft, "),
    ],
)
def test_a_name_that_is_not_known_is_refused_with_what_is(tmp_path: Path, changes: list[str], message: str) -> None:
    with chdir(tmp_path), pytest.raises(ConfigError, match=message):
        check(load_recipe("quickstart", [*changes, "trust_code=true"]))
